"""A plan as text: what was compiled, what it would cost, and how it scales."""

import collections
from collections.abc import Iterable, Iterator

import jax

from alexnet_jax.config import Config
from alexnet_jax.planning.arithmetic import FLOAT32, balance, exchanged, parameters, training_flops
from alexnet_jax.planning.chips import CPU
from alexnet_jax.planning.collectives import OTHER, totals
from alexnet_jax.planning.cost import HOP, Estimate, estimate, with_batch
from alexnet_jax.planning.planner import Plan, Program, surprises
from alexnet_jax.sharding.mesh import DATA, TOWER

PICTURES, EPOCHS = 1_281_167, 90  # ILSVRC-2012's training split; section 5
MOST_DEVICES = 4096


def show(plan: Plan) -> str:
    """Everything that a plan says."""
    parts = (_head(plan), communication(plan.config, plan.shape, plan.program), _cost(plan), _scaling(plan))
    return "\n\n".join("\n".join(lines) for lines in parts)


def _head(plan: Plan) -> Iterator[str]:
    config, program, chip = plan.config, plan.program, plan.chip
    data, tower = plan.shape
    each = config.train.batch_size // data
    total, here = parameters(config.network), parameters(config.network) // tower
    yield (
        f"plan     {plan.topology}, {plan.topology.devices} devices on {plan.topology.hosts} "
        f"host{'s' if plan.topology.hosts > 1 else ''}, {config.network.precision}"
    )
    yield f"mesh     {data} x {tower} (data x tower): {plan.reason}"
    yield f"batch    {config.train.batch_size:,}, {each:,} pictures a row of devices"
    yield (
        f"weights  {total:,} parameters; {here:,} on a device, {here * FLOAT32:,} bytes, and as many of "
        f"velocity"
    )
    yield (
        f"memory   {program.bytes / 1e9:.2f} of {chip.memory / 1e9:.2f} GB on a device: state and batch "
        f"{program.arguments / 1e9:.2f}, temporary {program.temporary / 1e9:.2f}"
    )
    yield f"         compiled in {program.seconds:.1f} s by jax {jax.__version__}"


def communication(config: Config, shape: tuple[int, int], program: Program) -> Iterator[str]:
    """What each device gives to the others in a step on a mesh, compiled and asked for."""
    yield "What each device gives to the others in a step, as compiled:"
    alike = collections.Counter(
        (one.kind, one.axis, str(one.group), f"{one.bytes:,}", " ".join(one.layers)) for one in program.done
    )
    rows = [
        (kind, axis, group, f"{times} x {size}" if times > 1 else size, layers)
        for (kind, axis, group, size, layers), times in alike.items()
    ]
    yield from columns([("operation", "axis", "devices", "bytes", "serves"), *rows], right=(2, 3))
    if not rows:
        yield "  nothing"
    yield "Asked for by the program, layer by layer:"
    wanted = exchanged(config, *shape)
    for axis, what in ((TOWER, "crossings, forward and backward"), (DATA, "gradients")):
        sizes = {layer: n for (a, layer), n in totals(program.asked).items() if a == axis and layer != OTHER}
        if sizes:
            listed = ", ".join(f"{layer} {n:,}" for layer, n in sizes.items())
            yield f"  {axis:<6} {sum(sizes.values()):,} bytes of {what}: {listed}"
            done = sum(one.bytes for one in program.done if one.axis == axis and one.layers != (OTHER,))
            if more := done - sum(sizes.values()):
                yield f"         {more:+,} as compiled: compilers pad, or do it in another way"
    different = surprises(config, shape, program)
    for (axis, layer), (asked, by_arithmetic) in different.items():
        yield f"  WARNING: over {axis} {layer} gives {asked:,} bytes, by arithmetic {by_arithmetic:,}"
    if wanted and not different:
        yield "  which is what the arithmetic says, to the byte"


def _cost(plan: Plan) -> Iterator[str]:
    cost, chip, program = plan.cost, plan.chip, plan.program
    network = plan.config.network
    each = training_flops(network)
    flops = each * cost.batch / (cost.data * cost.tower)
    said = f"; its compiler counts {program.flops / 1e9:,.1f}" if program.flops else ""
    yield (
        f"FLOPs    {flops / 1e9:,.1f} GFLOP in convolutions and products, a device and step, "
        f"{each / 1e9:.3f} a picture{said}"
    )
    yield (
        f"floors   arithmetic {_ms(cost.arithmetic)} ms, memory {_ms(cost.memory)} ms, link {_ms(cost.link)} "
        f"ms (towers {_ms(cost.exchange)}, gradients {_ms(cost.reduction)})"
    )
    yield (f"expect   {_ms(cost.step)} ms a step, {_speed(cost)} images/s, bound by {cost.bound}")
    yield (
        f"         {EPOCHS} epochs of ImageNet, {PICTURES:,} pictures, in "
        f"{EPOCHS * PICTURES / cost.images_per_second / 3600:,.2f} hours"
    )
    how = "fitted to one machine" if chip.name == CPU else "assumed"
    yield (
        f"         at {chip.reached:.0%} of peak and of the memory's bandwidth ({how}), {HOP * 1e6:.0f} us a "
        f"hop (assumed), nothing hidden behind anything else"
    )
    yield f"figures  {chip.source}"


def _scaling(plan: Plan) -> Iterator[str]:
    devices = plan.topology.devices
    each = max(1, plan.config.train.batch_size // devices)
    counts = [2**i for i in range(MOST_DEVICES.bit_length())]
    yield (
        f"Scaling with {each:,} pictures a device, {_group(plan, MOST_DEVICES)} devices on fast links, times "
        f"in ms; * is the faster mesh:"
    )
    grown = [_meshes(plan, count, each * count) for count in counts]
    yield from _rows(grown)
    fixed = [_meshes(plan, count, plan.config.train.batch_size) for count in counts]
    fixed = [costs for costs in fixed if costs]
    yield f"Scaling with {plan.config.train.batch_size:,} pictures in all:"
    yield from _rows(fixed)
    yield from _advice(plan, grown, each)


def _meshes(plan: Plan, devices: int, batch: int) -> list[Estimate]:
    """Both meshes for so many devices, data alone first, where they divide the batch."""
    config, towers = plan.config, plan.config.network.towers
    shapes = [(devices, 1), (devices // towers, towers)] if towers > 1 else [(devices, 1)]
    return [
        estimate(with_batch(config, batch), data, tower, _group(plan, devices), plan.chip)
        for data, tower in shapes
        if data and data * tower == devices and batch % data == 0
    ]


def _group(plan: Plan, devices: int) -> int:
    """Of so many devices, those with fast links to each other: one of several hosts, or the largest slice."""
    alike = plan.chip.name == CPU or (plan.chip.platform != "tpu" and plan.topology.hosts > 1)
    return min(devices, plan.topology.each if alike else plan.chip.joined)


def _rows(table: Iterable[list[Estimate]]) -> Iterator[str]:
    rows = [("devices", "mesh", "batch", "work", "towers", "gradients", "step", "images/s", "bound", "")]
    for costs in table:
        best = min(costs, key=lambda cost: cost.step)
        for cost in costs:
            times = (cost.work, cost.exchange, cost.reduction, cost.step)
            rows.append(
                (
                    f"{cost.data * cost.tower:,}",
                    f"{cost.data}x{cost.tower}",
                    f"{cost.batch:,}",
                    *map(_ms, times),
                    _speed(cost),
                    cost.bound,
                    "*" if cost is best else "",
                )
            )
    yield from columns(rows, right=(0, 1, 2, 3, 4, 5, 6, 7))


def _advice(plan: Plan, grown: list[list[Estimate]], each: int) -> Iterator[str]:
    config = plan.config
    if config.network.towers == 1:
        yield "Choose data alone: this net has one tower."
        return
    total = parameters(config.network) * FLOAT32
    yield (
        f"By bytes, the all-reduce of {total:,} takes over from the towers' exchange below "
        f"{balance(config.network):,.0f} pictures a row (the scores left out)."
    )
    split = [costs[-1] for costs in grown if costs[-1].tower > 1]
    over = next((cost for cost in split if cost.reduction > cost.exchange), None)
    where = f"from {over.data * over.tower:,} devices on" if over else f"on no mesh up to {MOST_DEVICES:,}"
    yield f"By time, with {each:,} pictures a device, it takes longer than the exchange {where}."
    yield f"Choose {_choice(grown)} devices."


def _choice(grown: list[list[Estimate]]) -> str:
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


def columns(rows: list[tuple[str, ...]], right: tuple[int, ...]) -> Iterator[str]:
    """Lines of a table, whose columns `right` are numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield f"  {'  '.join(cells)}".rstrip()


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.0f}" if seconds >= 1 else f"{seconds * 1e3:.3g}"


def _speed(cost: Estimate) -> str:
    rate = cost.images_per_second
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"
