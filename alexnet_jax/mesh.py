"""The device mesh: the paper's two GPUs are the axis `tower`; `data` copies them side by side."""

import functools
import os
from collections.abc import Sequence

import jax
import numpy as np
from jax import Device
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from alexnet_jax.config import Config
from alexnet_jax.errors import ConfigError

DATA = "data"
TOWER = "tower"

# Every parameter and its momentum has a leading axis of towers; a batch is cut by rows.
PARAMETERS = PartitionSpec(TOWER)
EVERYWHERE = PartitionSpec()


def open_mesh(config: Config) -> Mesh:
    """The mesh `data` x `tower` of a config; a field that is 0 is chosen from the devices that there are."""
    check_towers(config)
    if config.mesh.cpu_devices:
        simulate_cpu_devices(config.mesh.cpu_devices)
    devices = jax.devices()
    data, tower = widest(config, len(devices))
    if data * tower > len(devices):
        each = -(-data * tower // jax.process_count())
        raise ConfigError(
            f"mesh {data} x {tower} (data x tower) needs {data * tower} devices, there are {len(devices)} "
            f"({devices[0].platform}); simulate them with mesh.cpu_devices={each}"
        )
    return make_mesh(data, tower)


def check_towers(config: Config) -> None:
    """Every device of a row holds as many towers; known before any device is touched."""
    tower, towers = config.mesh.tower, config.network.towers
    if tower and towers % tower:
        divisors = [str(n) for n in range(1, towers + 1) if towers % n == 0]
        raise ConfigError(
            f"mesh.tower={tower} does not divide network.towers={towers}; choose {' or '.join(divisors)}"
        )


def make_mesh(data: int, tower: int) -> Mesh:
    """A mesh over the first devices, the towers of a row on one host where that is possible."""
    grid = np.array(arrange(jax.devices(), tower)[: data * tower]).reshape(data, tower)
    return Mesh(grid, (DATA, TOWER), axis_types=(AxisType.Auto, AxisType.Auto))


def arrange(devices: Sequence[Device], tower: int) -> list[Device]:
    """Groups of `tower` devices of one host first, then what is left over, by neighbouring hosts.

    Towers talk five times in a step, rows once.
    """
    hosts: dict[tuple[int, int], list[Device]] = {}
    for device in sorted(devices, key=_place):
        hosts.setdefault(_place(device)[:2], []).append(device)
    whole, left = [], []
    for own in hosts.values():
        count = len(own) // tower * tower
        whole += own[:count]
        left += own[count:]
    return whole + left


def _place(device: Device) -> tuple[int, int, int]:
    """Slices of a pod are joined by slow links, hosts of a slice by faster ones."""
    return getattr(device, "slice_index", 0), device.process_index, device.id


def simulate_cpu_devices(count: int) -> None:
    """Makes this process see `count` CPU devices; only before the first use of any device.

    XLA:CPU ends a process in which one device has waited a minute for another. But the machine may only be
    very busy: ten are allowed, where this XLA has the flag.
    """
    patience = "--xla_cpu_collective_call_terminate_timeout_seconds"
    flags = os.environ.get("XLA_FLAGS", "")
    if jax.__version_info__ < (0, 13) and patience not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {patience}=600".strip()
    jax.config.update("jax_num_cpu_devices", count)  # raises where devices are in use
    jax.config.update("jax_platforms", "cpu")


def row_spec(mesh: Mesh) -> PartitionSpec:
    """Batches by rows. A single row of devices is not an axis to sum gradients over: XLA would copy them."""
    return PartitionSpec(DATA) if mesh.shape[DATA] > 1 else EVERYWHERE


def shard(mesh: Mesh, spec: PartitionSpec) -> NamedSharding:
    """The sharding of an array over the mesh."""
    return NamedSharding(mesh, spec)


def batch_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """The rows of a global batch that this process must load: those that its own devices hold."""
    slices = shard(mesh, row_spec(mesh)).addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[rows] for rows in slices]))


def place_rows(mesh: Mesh, rows: np.ndarray, local: np.ndarray, batch_size: int) -> jax.Array:
    """The global array of a batch, from the rows (`batch_rows`) that this process has loaded."""

    def piece(index: tuple[slice, ...]) -> np.ndarray:
        start, stop, _ = index[0].indices(batch_size)
        first = np.searchsorted(rows, start)
        return local[first : first + stop - start]

    shape = (batch_size, *local.shape[1:])
    return jax.make_array_from_callback(shape, shard(mesh, row_spec(mesh)), piece)


def compiler_options(platform: str) -> dict[str, str | int]:
    """XLA options for a platform; empty where this jaxlib does not know them.

    XLA:CPU sends float32 convolutions to YNNPACK, whose weight gradients run 5-16 times slower than the
    convolutions that it replaced; matrix products are better off with it.
    """
    if platform != "cpu":
        return {}
    return known_options(xla_cpu_experimental_ynn_fusion_type="LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT")


@functools.cache
def known_options(**options: str | int) -> dict[str, str | int]:
    """XLA options, or none where this jaxlib does not know them all."""
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except Exception:  # jaxlib raises its own type, and it has changed: any failure means "unknown".
        return {}
    return options


def widest(config: Config, devices: int) -> tuple[int, int]:
    """(data, tower) for so many devices; fields of the config's mesh that are set stay.

    The widest `tower` axis that leaves no device idle, or fits beside the `data` that was asked for.
    """
    wanted, towers = config.mesh, config.network.towers
    widths = [n for n in range(towers, 1, -1) if towers % n == 0]
    fit = [n for n in widths if (n * wanted.data <= devices if wanted.data else devices % n == 0)]
    tower = wanted.tower or (fit[0] if fit else 1)
    return wanted.data or max(1, devices // tower), tower


def check_batch(mesh: Mesh, name: str, size: int) -> None:
    """A batch is cut evenly over the mesh's data rows; `name` is how the user chooses its size."""
    data = mesh.shape[DATA]
    if size % data:
        below, above = size // data * data, (size // data + 1) * data
        choices = f"{below} or {above}" if below else f"{above} or {above + data}"
        raise ConfigError(f"{name}={size} does not divide over the mesh's {data} data rows; choose {choices}")


def check_blocks(mesh: Mesh, blocks: int) -> None:
    """Every data row computes as many blocks."""
    data = mesh.shape[DATA]
    if blocks % data:
        choices = " or ".join(str(2**n) for n in range(blocks.bit_length()))
        raise ConfigError(
            f"train.blocks={blocks} does not divide over the mesh's {data} data rows; choose "
            f"--config.train.blocks=0, or --config.mesh.data={choices}"
        )
