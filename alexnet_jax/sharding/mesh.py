"""The device mesh: the paper's two GPUs are the axis `tower`; `data` copies them side by side."""

from collections.abc import Sequence

import jax
import numpy as np
from jax import Device
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from alexnet_jax.config.fields import MeshConfig
from alexnet_jax.errors import ConfigError
from alexnet_jax.sharding.platform import simulate_cpu_devices

DATA = "data"
TOWER = "tower"

PARAMETERS = PartitionSpec(TOWER)  # every parameter and its momentum has a leading axis of towers
ROWS = PartitionSpec(DATA)  # a batch is split by rows
REPLICATED = PartitionSpec()


def make_mesh(data: int, tower: int, devices: Sequence[Device] | None = None) -> Mesh:
    """The mesh `data` x `tower` over the first of the devices, by default all that there are.

    Its axes are Auto: outside of `shard_map` a step only updates, element by element, arrays that are split
    alike, and XLA needs no help to see that nothing has to move.
    """
    if devices is None:
        devices = towers_together(jax.devices(), tower)
    grid = np.array(devices[: data * tower]).reshape(data, tower)
    return Mesh(grid, (DATA, TOWER), axis_types=(AxisType.Auto, AxisType.Auto))


def open_mesh(wanted: MeshConfig, towers: int) -> Mesh:
    """The mesh of a config for a network of so many towers; a size that is 0 is chosen by `choose_shape`."""
    check_towers(wanted, towers)
    if wanted.cpu_devices:
        simulate_cpu_devices(wanted.cpu_devices)
    devices = jax.devices()
    data, tower = choose_shape(wanted, towers, len(devices))
    if data * tower > len(devices):
        each = -(-data * tower // jax.process_count())
        raise ConfigError(
            f"mesh {data} x {tower} (data x tower) needs {data * tower} devices, there are {len(devices)} "
            f"({devices[0].platform}); simulate them with mesh.cpu_devices={each}"
        )
    return make_mesh(data, tower)


def choose_shape(wanted: MeshConfig, towers: int, devices: int) -> tuple[int, int]:
    """(data, tower) for so many devices; sizes that are set stay.

    The widest `tower` axis that leaves no device idle, or fits beside the `data` that was asked for.
    """
    widths = [n for n in range(towers, 1, -1) if towers % n == 0]
    fit = [n for n in widths if (n * wanted.data <= devices if wanted.data else devices % n == 0)]
    tower = wanted.tower or (fit[0] if fit else 1)
    return wanted.data or max(1, devices // tower), tower


def check_towers(wanted: MeshConfig, towers: int) -> None:
    """Refuses a `tower` axis whose devices would hold unequally many; known before any device is used."""
    if wanted.tower and towers % wanted.tower:
        divisors = [str(n) for n in range(1, towers + 1) if towers % n == 0]
        raise ConfigError(
            f"mesh.tower={wanted.tower} does not divide network.towers={towers}; choose "
            f"{' or '.join(divisors)}"
        )


def towers_together(devices: Sequence[Device], tower: int) -> list[Device]:
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


def shard(mesh: Mesh, spec: PartitionSpec) -> NamedSharding:
    """The sharding of an array over the mesh."""
    return NamedSharding(mesh, spec)
