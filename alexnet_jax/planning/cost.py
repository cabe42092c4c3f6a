"""The least time that a step takes on a mesh of a chip, and which mesh has the least of it."""

import collections
import dataclasses
from dataclasses import dataclass

from alexnet_jax.config.fields import Config
from alexnet_jax.planning.arithmetic import exchanged, memory, passes
from alexnet_jax.planning.chips import Chip
from alexnet_jax.sharding.mesh import DATA, TOWER, choose_shape

HOP = 10e-6  # seconds until a device hears of another, assumed: short messages cost this much


@dataclass(frozen=True)
class Floors:
    """Lower bounds of a step in seconds, each at the chip's peak."""

    data: int
    tower: int
    batch: int
    products: float
    memory: float  # every pass's bytes at the memory's bandwidth
    exchange: float  # between towers
    reduction: float  # of gradients, over rows
    fits: float  # bytes on a device, roughly

    @property
    def step(self) -> float:
        return max(self.products, self.memory) + self.exchange + self.reduction

    @property
    def bound(self) -> str:
        """The name of the largest bound."""
        parts = {"towers' exchange": self.exchange, "all-reduce": self.reduction}
        parts |= {"products": self.products, "memory": self.memory}
        return max(parts, key=parts.get)


def floors(config: Config, data: int, tower: int, each: int, chip: Chip) -> Floors:
    """A step on a mesh of hosts with `each` devices."""
    found, sent = list(passes(config, data, tower)), collections.Counter()
    at_once = dataclasses.replace(config, train=dataclasses.replace(config.train, blocks=0))  # the same ring
    for (axis, _), count in exchanged(at_once, data, tower).items():
        sent[axis] += count
    return Floors(
        data,
        tower,
        config.train.batch_size,
        products=sum(p.flops for p in found) / chip.peak(config.network.precision),
        memory=sum(p.bytes for p in found) / chip.bandwidth,
        exchange=_exchange(sent[TOWER], tower, each, chip),
        reduction=_reduction(sent[DATA], data, tower, each, chip),
        fits=memory(config, data, tower),
    )


def fast_devices(each: int, chip: Chip) -> int:
    """Devices with fast links to each other: a host's GPUs, a slice of TPUs."""
    return chip.joined if chip.platform == "tpu" else each


def _exchange(part: float, tower: int, each: int, chip: Chip) -> float:
    """Every tower's device sends its part to each of the others, in turn."""
    if tower == 1:
        return 0.0
    speed = chip.pair if fast_devices(each, chip) % tower == 0 else chip.between
    return part * (tower - 1) / speed


def _reduction(part: float, data: int, tower: int, each: int, chip: Chip) -> float:
    """Rings of all rows, one for each of the mesh's towers; hosts share their way out among them."""
    if data == 1:
        return 0.0
    rows = max(1, fast_devices(each, chip) // tower)  # of devices with fast links to each other
    hops = 2 * HOP * (data - 1).bit_length()
    ring = 2 * (data - 1) / data * part
    inside = ring / chip.ring if rows > 1 else 0.0
    # What leaves a host: one ring for each tower that it holds, over the ways out of all its devices.
    outside = ring / (chip.between * rows) if data > rows else 0.0
    return max(inside, outside) + hops


def choose_mesh(config: Config, hosts: int, each: int, chip: Chip | None) -> tuple[tuple[int, int], str]:
    """(data, tower) for `hosts` of `each` devices, and why; fields of the config's mesh that are set stay."""
    devices, wanted, towers = hosts * each, config.mesh, config.network.towers
    if chip is None:
        return choose_shape(wanted, towers, devices), "the widest tower axis that fits"
    widths = [wanted.tower] if wanted.tower else [n for n in range(1, towers + 1) if towers % n == 0]
    shapes = [
        (wanted.data or devices // tower, tower)
        for tower in widths
        if (wanted.data * tower <= devices if wanted.data else devices % tower == 0)
    ] or [choose_shape(wanted, towers, devices)]  # every width leaves devices idle
    batch, blocks = config.train.batch_size, config.train.blocks
    divides = [s for s in shapes if batch % s[0] == 0 and blocks % s[0] == 0] or shapes
    costs = sorted((floors(config, *shape, each, chip) for shape in divides), key=lambda cost: cost.step)
    best, *others = [cost for cost in costs if cost.fits <= chip.memory] or costs
    reason = "the only one for these devices and this batch"
    if others:
        reason = f"at least {best.step * 1e3:.3g} ms a step, {others[0].step * 1e3:.3g} on "
        reason += f"{others[0].data} x {others[0].tower}"
    return (best.data, best.tower), reason


def with_batch(config: Config, size: int) -> Config:
    """The same run with another batch."""
    return dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=size))
