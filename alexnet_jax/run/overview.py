"""What a run is about to do, on one screen: data, mesh, parameters."""

import jax
from clu import parameter_overview
from jax.sharding import Mesh

from alexnet_jax.config import Config
from alexnet_jax.data.batches import PackedSet
from alexnet_jax.learning.step import Params
from alexnet_jax.mesh import DATA, TOWER
from alexnet_jax.run.ancestor import CLASSIFIER


def overview(config: Config, mesh: Mesh, params: Params, packed: PackedSet, first: int, total: int) -> str:
    """The opening lines of a run."""
    images = {split: packed.images(split) for split in packed.info.splits}
    counts = ", ".join(f"{count} {split}" for split, count in images.items())
    size, crop = config.data.size, config.network.image_size
    start = f"resuming at step {first} of {total}" if first else f"{total} steps"
    if config.init_from:
        start += f", begun with the weights of {config.init_from}, but for {CLASSIFIER}'s"
    blocks = f" in {config.train.blocks} blocks" if config.train.blocks else ""
    return "\n".join(
        [
            parameter_overview.get_parameter_overview(params, include_stats="sharding"),
            f"data   {packed.info.name}, {len(packed.class_names)} classes, {counts} pictures, "
            f"{size} x {size}, crops of {crop}",
            mesh_drawing(mesh, config.network.towers, config.train.batch_size),
            f"run    {start}, batch {config.train.batch_size}{blocks}, jax {jax.__version__}",
        ]
    )


def mesh_drawing(mesh: Mesh, towers: int, batch_size: int) -> str:
    """Which device holds which towers and which rows of a batch."""
    rows, columns = batch_size // mesh.shape[DATA], towers // mesh.shape[TOWER]
    lines = [
        f"mesh   {mesh.shape[DATA]} x {mesh.shape[TOWER]} (data x tower), {mesh.devices.flat[0].device_kind}"
    ]
    for i, line in enumerate(mesh.devices):
        cells = [
            f"[{device.platform}:{device.id} {_span('tower', j * columns, columns)}]"
            for j, device in enumerate(line)
        ]
        lines.append(f"       {_span('row', i * rows, rows):<16} {' '.join(cells)}")
    return "\n".join(lines)


def _span(name: str, first: int, count: int) -> str:
    return f"{name} {first}" if count == 1 else f"{name}s {first}-{first + count - 1}"
