"""A run on one screen: data, network, mesh, parameters, schedule, files."""

import math
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.sharding import Mesh

from alexnet_jax.cli import shorter
from alexnet_jax.config.fields import CLASSIFIER, Config, NetworkConfig, ScheduleConfig
from alexnet_jax.data.batches import PackedSet
from alexnet_jax.network.layers import Params
from alexnet_jax.network.shapes import POOL_OF, layer_sizes
from alexnet_jax.sharding.mesh import DATA, TOWER
from alexnet_jax.text import columns

COLUMNS = ("layer", "output", "kernel", "parameters", "spec", "reads", "then")
MOST_ROWS = 8  # of devices that are drawn


def overview(
    config: Config, mesh: Mesh, params: Params, packed: PackedSet, first: int, total: int, workdir: Path
) -> str:
    """The opening lines of a run."""
    images = {split: packed.images(split) for split in packed.info.splits}
    counts = ", ".join(f"{count} {split}" for split, count in images.items())
    size, crop = config.data.size, config.network.image_size
    return "\n".join(
        [
            f"data   {packed.info.name}, {len(packed.class_names)} classes, {counts} pictures, "
            f"{size} x {size}, crops of {crop}",
            network_table(config.network, params),
            mesh_drawing(mesh, config.network.towers, config.train.batch_size),
            weights(params),
            f"rate   {rates(config.schedule)}; momentum {config.optimizer.momentum:g}, "
            f"decay {config.optimizer.weight_decay:g}",
            _length(config, images["train"], first, total),
            _files(config, workdir),
        ]
    )


def _length(config: Config, images: int, first: int, total: int) -> str:
    """The length of the run, and where it starts."""
    start = f"resuming at step {first} of {total}" if first else f"{total} steps"
    if config.init_from:
        start += f", begun with the weights of {config.init_from}, but for {CLASSIFIER}'s"
    batch = config.train.batch_size
    blocks = f" in {config.train.blocks} blocks" if config.train.blocks else ""
    steps = float(config.train.epoch_steps(images))
    epochs = f"{total / steps:.4g} epochs of {steps:.6g} steps"
    return f"run    {start}, batch {batch}{blocks}, {epochs}, jax {jax.__version__}"


def _files(config: Config, workdir: Path) -> str:
    """The files of the run."""
    folder, kept = shorter(workdir), config.checkpoint
    best = ", and the best" if kept.keep_best else ""
    stay = f"at least every {kept.every_steps} steps: the newest {kept.keep}{best}"
    return f"files  {folder}: metrics.jsonl, checkpoints/ {stay}\n       tensorboard --logdir={folder}"


def network_table(config: NetworkConfig, params: Params) -> str:
    """A line a layer: output, kernel, parameters, what it reads and what follows."""
    sizes, rows = layer_sizes(config), [COLUMNS]
    convs, hidden = config.convs(), config.hidden()
    for name in config.layers():
        kernel = params[name]["kernel"]
        width = config.classes if name == CLASSIFIER else (convs | hidden)[name].width
        count = sum(x.size for x in jax.tree.leaves(params[name]))
        spec = f"P({', '.join(map(repr, kernel.sharding.spec))})"
        output = f"{sizes[name]} x {sizes[name]} x {width}" if name in convs else f"{width}"
        reads = "all towers" if name in config.crossings else "pictures" if name == "conv1" else "its tower"
        then = ", ".join(_then(config, name, sizes))
        rows.append((name, output, " x ".join(map(str, kernel.shape)), f"{count:,}", spec, reads, then))
    lines = columns(rows, right=(1, 3))
    one = "1 tower" if config.towers == 1 else f"{config.towers} towers, the first axis of every array"
    return "\n".join([f"net    {one}; {config.precision}", *(f"       {line}" for line in lines)])


def _then(config: NetworkConfig, name: str, sizes: dict[str, int]) -> Iterator[str]:
    """The operations after a layer, in order."""
    side = sizes.get(POOL_OF.get(name, ""))
    words = {
        "activation": config.activation,
        "lrn": "LRN" if config.lrn.over == "tower" else "LRN over all towers",
        "map_norm": "LRN in maps",
        "batch_norm": "batch norm",
        "max_pool": f"pool to {side} x {side}",
        "average_pool": f"average pool to {side} x {side}",
    }
    if name in config.convs():
        yield from (words[operation] for operation in config.convs()[name].then)
    if name in config.hidden():
        yield config.activation
    if name in config.hidden() and config.dropout:
        yield f"dropout {config.dropout:g}"


def weights(params: Params) -> str:
    """The number of parameters, and the share of a device."""
    leaves = jax.tree.leaves(params)
    total = sum(x.size for x in leaves)
    held = [(math.prod(x.sharding.shard_shape(x.shape)), x.dtype.itemsize) for x in leaves]
    count, size = sum(n for n, _ in held), sum(n * width for n, width in held)
    return f"params {total:,} parameters; {count:,} on a device, {size:,} bytes, and as many of velocity"


def rates(schedule: ScheduleConfig) -> str:
    """The learning rate in words."""
    by, warm = f"divided by {schedule.factor:g}", schedule.warmup_epochs
    at = ", ".join(f"{epoch:g}" for epoch in schedule.drops)
    ways = {
        "plateau": f"{by} after {schedule.patience} validations without a better one, "
        f"{schedule.max_drops} times at most",
        "drops": f"{by} at epochs {at}" if at else "throughout",
        "dexp": f"{by} in all, in {schedule.levels} equal levels",
        "polynomial": f"times (1 - what is gone of the run) ^ {schedule.power:g}",
    }
    words = f"{schedule.learning_rate:g}, {ways[schedule.kind]}"
    words += f", after {warm:g} epochs of ascent" if warm else ""
    biases = schedule.biases
    if biases.kind != "weights" or biases.ratio != 1:
        words += f"; biases at {biases.ratio:g} times that"
        words += "" if biases.kind == "weights" else f", with {biases.kind} of their own"
    own = ", ".join(f"{name} {rate:g} from epoch {epoch:g}" for name, epoch, rate in schedule.layers)
    return f"{words}; {own}" if own else words


def mesh_drawing(mesh: Mesh, towers: int, batch_size: int) -> str:
    """The towers and the rows of a batch that each device holds."""
    rows, columns = batch_size // mesh.shape[DATA], towers // mesh.shape[TOWER]
    lines = [
        f"mesh   {mesh.shape[DATA]} x {mesh.shape[TOWER]} (data x tower), {mesh.devices.flat[0].device_kind}"
    ]
    drawn = []
    for i, line in enumerate(mesh.devices):
        cells = [
            f"[{device.platform}:{device.id} {_span('tower', j * columns, columns)}]"
            for j, device in enumerate(line)
        ]
        drawn.append(f"       {_span('row', i * rows, rows):<16} {' '.join(cells)}")
    if len(drawn) > MOST_ROWS:
        drawn[MOST_ROWS // 2 : 1 - MOST_ROWS // 2] = ["       ..."]
    return "\n".join(lines + drawn)


def _span(name: str, first: int, count: int) -> str:
    return f"{name} {first}" if count == 1 else f"{name}s {first}-{first + count - 1}"
