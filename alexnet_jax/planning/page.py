"""A plan as text: what was compiled, what nothing can beat, and how it scales."""

import collections
from collections.abc import Iterator

import jax

from alexnet_jax.config.fields import Config
from alexnet_jax.planning.arithmetic import FLOAT32, exchanged, parameters, training_flops
from alexnet_jax.planning.chips import Chip
from alexnet_jax.planning.collectives import OTHER, totals
from alexnet_jax.planning.compiling import Plan, Program, surprises
from alexnet_jax.planning.cost import HOP, Floors, floors, with_batch
from alexnet_jax.sharding.mesh import DATA, TOWER
from alexnet_jax.text import columns

MOST_DEVICES = 4096
HEADINGS = ("devices", "mesh", "batch", "products", "memory", "towers", "gradients", "step", "bound", "")


def plan_text(plan: Plan) -> str:
    """The text of a plan."""
    parts = [_head(plan), communication_lines(plan.config, plan.shape, plan.program)]
    if plan.chip:
        parts += [_floors(plan, plan.chip), _scaling(plan, plan.chip)]
    return "\n\n".join("\n".join(lines) for lines in parts)


def _head(plan: Plan) -> Iterator[str]:
    config, program = plan.config, plan.program
    data, tower = plan.shape
    hosts = f"{plan.topology.hosts} host{'s' if plan.topology.hosts > 1 else ''}"
    total, here = parameters(config.network), parameters(config.network) // tower
    of = f" of {plan.chip.memory / 1e9:.2f}" if plan.chip else ""
    yield f"plan     {plan.topology}, {plan.topology.devices} devices on {hosts}, {config.network.precision}"
    yield f"mesh     {data} x {tower} (data x tower): {plan.reason}"
    batch = config.train.batch_size
    yield f"batch    {batch:,}, {batch // data:,} pictures a row of devices"
    held = f"{here:,} on a device, {here * FLOAT32:,} bytes, and as many of velocity"
    yield f"weights  {total:,} parameters; {held}"
    yield (
        f"memory   {program.bytes / 1e9:.2f}{of} GB on a device: state and batch "
        f"{program.arguments / 1e9:.2f}, temporary {program.temporary / 1e9:.2f}"
    )
    yield f"         compiled in {program.seconds:.1f} s by jax {jax.__version__}"


def communication_lines(config: Config, shape: tuple[int, int], program: Program) -> Iterator[str]:
    """Bytes that each device sends to the others in a step, as compiled and as the program asks."""
    yield "What each device sends to each of the others in a step, as compiled:"
    alike = collections.Counter(
        (one.kind, one.axis, f"{one.group}", f"{one.bytes:,}") for one in program.done
    )
    rows = [(*names, f"{times} x {size}") for (*names, size), times in alike.items()]
    lines = columns([("operation", "axis", "devices", "bytes"), *rows], right=(2, 3)) if rows else ["nothing"]
    yield from (f"  {line}" for line in lines)
    yield "Asked for by the program, layer by layer:"
    for axis, what in ((TOWER, "crossings, forward and backward"), (DATA, "gradients")):
        sizes = {layer: n for (a, layer), n in totals(program.asked).items() if a == axis and layer != OTHER}
        if sizes:
            listed = ", ".join(f"{layer} {n:,}" for layer, n in sizes.items())
            yield f"  {axis:<6} {sum(sizes.values()):,} bytes of {what}: {listed}"
    different = surprises(config, shape, program)
    for (axis, layer), (asked, by_arithmetic) in different.items():
        yield f"  WARNING: over {axis} {layer} sends {asked:,} bytes, by arithmetic {by_arithmetic:,}"
    if exchanged(config, *shape) and not different:
        yield "  which is what the arithmetic says, to the byte"


def _floors(plan: Plan, chip: Chip) -> Iterator[str]:
    """The least that a step takes."""
    config, (data, tower) = plan.config, plan.shape
    found, each = floors(config, data, tower, plan.topology.each, chip), training_flops(config.network)
    total = each * found.batch / (data * tower)
    said = f"; its compiler counts {plan.program.flops / 1e9:,.1f}" if plan.program.flops else ""
    yield (
        f"FLOPs    {total / 1e9:,.1f} GFLOP in convolutions and products, a device and step, "
        f"{each / 1e9:.3f} a picture{said}"
    )
    yield (
        f"floors   products {_ms(found.products)} ms, memory {_ms(found.memory)} ms, towers "
        f"{_ms(found.exchange)} ms, gradients {_ms(found.reduction)} ms"
    )
    yield f"         of the data sheet's peak rates, {HOP * 1e6:.0f} us a hop (assumed); a run takes longer"
    yield f"rates    {chip.source}"


def _scaling(plan: Plan, chip: Chip) -> Iterator[str]:
    """More devices, by arithmetic alone: with as many pictures a device as here, and as many in all."""
    batch, counts = plan.config.train.batch_size, [2**i for i in range(MOST_DEVICES.bit_length())]
    each = max(1, batch // plan.topology.devices)
    group = plan.topology.each if chip.platform != "tpu" and plan.topology.hosts > 1 else chip.joined
    yield (
        f"Scaling by arithmetic with {each:,} pictures a device, {min(group, MOST_DEVICES)} devices on fast "
        "links, least times in ms; * is the faster mesh:"
    )
    grown = [_meshes(plan, chip, count, each * count, group) for count in counts]
    yield from _rows(grown)
    yield f"Scaling with {batch:,} pictures in all:"
    yield from _rows([costs for count in counts if (costs := _meshes(plan, chip, count, batch, group))])
    if plan.config.network.towers > 1:
        yield f"Choose {_choice(grown)} devices."


def _meshes(plan: Plan, chip: Chip, devices: int, batch: int, group: int) -> list[Floors]:
    """Both meshes for so many devices, data alone first, where they divide the batch."""
    config, towers = plan.config, plan.config.network.towers
    shapes = [(devices, 1), (devices // towers, towers)] if towers > 1 else [(devices, 1)]
    return [
        floors(with_batch(config, batch), data, tower, min(devices, group), chip)
        for data, tower in shapes
        if data and data * tower == devices and batch % data == 0
    ]


def _rows(found: list[list[Floors]]) -> Iterator[str]:
    rows = [HEADINGS]
    for costs in found:
        best = min(costs, key=lambda cost: cost.step)
        for cost in costs:
            sizes = (f"{cost.data * cost.tower:,}", f"{cost.data}x{cost.tower}", f"{cost.batch:,}")
            times = (cost.products, cost.memory, cost.exchange, cost.reduction, cost.step)
            rows.append((*sizes, *map(_ms, times), cost.bound, "*" if cost is best else ""))
    yield from (f"  {line}" for line in columns(rows, right=range(8)))


def _choice(grown: list[list[Floors]]) -> str:
    """Runs of device counts with the same winner."""
    runs: list[tuple[str, int, int]] = []
    for costs in grown:
        best = min(costs, key=lambda cost: cost.step)
        kind, devices = "data alone" if best.tower == 1 else f"data x {best.tower}", best.data * best.tower
        if len(costs) < 2:
            continue
        if runs and runs[-1][0] == kind:
            runs[-1] = (kind, runs[-1][1], devices)
        else:
            runs.append((kind, devices, devices))
    return ", ".join(f"{kind} for {first:,} to {last:,}" for kind, first, last in runs)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.0f}" if seconds >= 1 else f"{seconds * 1e3:.3g}"
