"""How long a step takes on a mesh of a chip, and which mesh to choose."""

import collections
import dataclasses
from dataclasses import dataclass

from alexnet_jax.config import Config
from alexnet_jax.planning.arithmetic import exchanged, memory, passes, temporary
from alexnet_jax.planning.chips import Chip
from alexnet_jax.sharding.mesh import DATA, TOWER

HOP = 10e-6  # seconds until a device hears of another, assumed: short messages cost this much


@dataclass(frozen=True)
class Estimate:
    """A step on one device, in seconds; the floors are what nothing can beat, at peak and all at once."""

    data: int
    tower: int
    batch: int
    arithmetic: float  # floor: all products at peak
    memory: float  # floor: every pass's bytes at the memory's bandwidth
    work: float  # predicted: each pass by the slower of the two, at the share of it that is reached
    limit: str  # what most of that work waits for
    exchange: float  # between towers
    reduction: float  # of gradients, over rows
    fits: float  # bytes on a device, roughly

    @property
    def link(self) -> float:
        return self.exchange + self.reduction

    @property
    def step(self) -> float:
        """Communication is not hidden behind work: a program that hides it is faster."""
        return self.work + self.link

    @property
    def images_per_second(self) -> float:
        return self.batch / self.step

    @property
    def bound(self) -> str:
        """What takes longest."""
        parts = {"towers' exchange": self.exchange, "all-reduce": self.reduction, self.limit: self.work}
        return max(parts, key=parts.get)


def estimate(config: Config, data: int, tower: int, each: int, chip: Chip) -> Estimate:
    """A step on a mesh of hosts with `each` devices."""
    peak = chip.peak(config.network.precision)
    found = list(passes(config, data, tower))
    computing = [p.flops / (peak * chip.reached) for p in found]
    moving = [p.bytes / (chip.bandwidth * chip.reached) for p in found]
    longer = [max(pair) for pair in zip(computing, moving, strict=True)]
    waits = sum(t for t, c in zip(longer, computing, strict=True) if t == c)
    sent = collections.Counter()
    at_once = dataclasses.replace(config, train=dataclasses.replace(config.train, blocks=0))  # the same ring
    for (axis, _), size in exchanged(at_once, data, tower).items():
        sent[axis] += size
    return Estimate(
        data,
        tower,
        config.train.batch_size,
        arithmetic=sum(p.flops for p in found) / peak,
        memory=sum(p.bytes for p in found) / chip.bandwidth,
        work=sum(longer) + temporary(config, data, tower) / chip.fresh,
        limit="arithmetic" if 2 * waits > sum(longer) else "memory",
        exchange=_exchange(sent[TOWER], tower, each, chip),
        reduction=_reduction(sent[DATA], data, tower, each, chip),
        fits=memory(config, data, tower),
    )


def joined(each: int, chip: Chip) -> int:
    """Devices with fast links to each other: a host's GPUs, a slice of TPUs."""
    return chip.joined if chip.platform == "tpu" else each


def _exchange(part: float, tower: int, each: int, chip: Chip) -> float:
    """Every tower's device sends its part to each of the others, in turn."""
    if tower == 1:
        return 0.0
    speed = chip.pair if joined(each, chip) % tower == 0 else chip.between
    return part * (tower - 1) / speed


def _reduction(part: float, data: int, tower: int, each: int, chip: Chip) -> float:
    """Rings of all rows, one for each of the mesh's towers; hosts share their way out among them."""
    if data == 1:
        return 0.0
    group = joined(each, chip)
    rows = max(1, group // tower)  # of devices with fast links to each other
    hops = 2 * HOP * (data - 1).bit_length()
    ring = 2 * (data - 1) / data * part
    inside = ring / chip.ring if rows > 1 else 0.0
    # What leaves a host: one ring for each tower that it holds, over the ways out of all its devices.
    outside = ring / (chip.between * rows) if data > rows else 0.0
    return max(inside, outside) + hops


def choose_mesh(config: Config, hosts: int, each: int, chip: Chip) -> tuple[tuple[int, int], str]:
    """(data, tower) for `hosts` of `each` devices, and why; fields of the config's mesh that are set stay.

    Arithmetic only.
    """
    devices, wanted = hosts * each, config.mesh
    shapes = [
        (wanted.data or devices // tower, tower)
        for tower in _widths(config)
        if (wanted.data * tower <= devices if wanted.data else devices % tower == 0)
    ]
    if not shapes:  # every width leaves devices idle
        shapes = [(wanted.data or max(1, devices // tower), tower) for tower in _widths(config)]
    train = config.train
    divides = [s for s in shapes if train.batch_size % s[0] == 0 == train.blocks % s[0]] or shapes
    costs = sorted((estimate(config, *shape, each, chip) for shape in divides), key=lambda e: e.step)
    fit = [cost for cost in costs if cost.fits <= chip.memory] or costs
    best, *others = fit
    return (best.data, best.tower), _reason(best, others)


def _widths(config: Config) -> list[int]:
    towers = config.network.towers
    if config.mesh.tower:
        return [config.mesh.tower]
    return [n for n in range(1, towers + 1) if towers % n == 0]


def _reason(best: Estimate, others: list[Estimate]) -> str:
    if not others:
        return "the only one for these devices and this batch"
    other = others[0]
    slower = f"{other.step * 1e3:,.1f} on {other.data} x {other.tower}"
    return f"{best.step * 1e3:,.1f} ms a step by arithmetic, {slower}"


def with_batch(config: Config, size: int) -> Config:
    """The same run with another batch."""
    return dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=size))
