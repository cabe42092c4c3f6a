"""The real training step, compiled for hardware that isn't there."""

import dataclasses
import re
import time
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from alexnet_jax.config.fields import Config
from alexnet_jax.errors import ConfigError
from alexnet_jax.learning.augment import Pixels
from alexnet_jax.learning.metrics import Totals
from alexnet_jax.learning.schedule import Pace
from alexnet_jax.learning.state import Batch, abstract_state
from alexnet_jax.learning.step import make_train_step
from alexnet_jax.planning.arithmetic import exchanged, memory
from alexnet_jax.planning.chips import CHIPS, Chip
from alexnet_jax.planning.collectives import OTHER, Collective, read, requested, totals
from alexnet_jax.planning.cost import choose_mesh, with_batch
from alexnet_jax.planning.topology import Topology, devices_of
from alexnet_jax.sharding.blocks import check_blocks
from alexnet_jax.sharding.mesh import REPLICATED, ROWS, check_towers, make_mesh, shard
from alexnet_jax.sharding.rows import check_batch

# How a TPU's compiler refuses.
_EXHAUSTED = re.compile(r"RESOURCE_EXHAUSTED.*\(([\d.]+)([KMG])\) exceeds")


@dataclass(frozen=True)
class Program:
    """A compiled step, and what the compiler says of it."""

    text: str
    seconds: float  # to lower and compile
    arguments: int  # bytes on each device: state and batch
    temporary: int
    flops: float  # a device; 0 where this compiler does not say
    asked: list[Collective]
    done: list[Collective]

    @property
    def bytes(self) -> int:
        return self.arguments + self.temporary


@dataclass(frozen=True)
class Plan:
    """A run on a topology; a CPU is no chip of the table."""

    config: Config
    topology: Topology
    chip: Chip | None
    shape: tuple[int, int]
    reason: str
    program: Program


def plan_run(config: Config, topology: Topology, shape: tuple[int, int] | None) -> Plan:
    """Refuses what cannot work before anything is compiled, and what does not fit after."""
    if shape is not None:
        data, tower = shape
        config = dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, data=data, tower=tower))
        _check_shape(config, topology, shape)
    check_towers(config.mesh, config.network.towers)
    chip = CHIPS.get(topology.name)
    chosen, reason = choose_mesh(config, topology.hosts, topology.each, chip)
    _check_shape(config, topology, chosen)
    check_batch(chosen[0], "--batch", config.train.batch_size)
    check_blocks(chosen[0], config.train.blocks)
    program = compile_step(config, make_mesh(*chosen, devices_of(topology)))
    if chip and program.bytes > chip.memory:
        raise ConfigError(_too_large(config, topology, chip, chosen, program))
    return Plan(config, topology, chip, chosen, "as asked" if shape else reason, program)


def surprises(
    config: Config, shape: tuple[int, int], program: Program
) -> dict[tuple[str, str], tuple[int, int]]:
    """Communication that differs from the arithmetic: bytes of both, by (axis, layer)."""
    asked = {key: n for key, n in totals(program.asked).items() if key[1] != OTHER}
    wanted = exchanged(config, *shape)
    both = {key: (asked.get(key, 0), wanted.get(key, 0)) for key in sorted({*asked, *wanted})}
    return {key: pair for key, pair in both.items() if pair[0] != pair[1]}


def lower_step(config: Config, mesh: Mesh) -> jax.stages.Lowered:
    """The step on shapes alone, placed as in a run."""

    def places(spec: PartitionSpec, *shape: int, kind: type = np.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, kind, sharding=shard(mesh, spec))

    def everywhere(tree: Totals | Pace) -> Totals | Pace:
        return jax.tree.map(lambda x: places(REPLICATED, *x.shape, kind=x.dtype), tree)

    size, batch, rows = config.data.size, config.train.batch_size, ROWS
    pixels = Pixels(places(REPLICATED, size, size, 3), places(REPLICATED, 3, 3))
    pictures = Batch(places(rows, batch, size, size, 3, kind=np.uint8), places(rows, batch, kind=np.int32))
    step = make_train_step(config, mesh)
    state = abstract_state(config, mesh)
    return step.lower(state, everywhere(Totals.zero()), pixels, pictures, everywhere(Pace.steady(0)))


def compile_step(config: Config, mesh: Mesh) -> Program:
    """The step, compiled, and what it will need."""
    start = time.perf_counter()
    lowered = lower_step(config, mesh)
    asked = requested(lowered, mesh)
    try:
        program = lowered.compile()
    except Exception as error:  # jaxlib raises its own type
        if not (needs := _exhausted(str(error))):
            raise
        return Program("", time.perf_counter() - start, 0, needs, 0.0, asked, [])
    seconds, text, needs = time.perf_counter() - start, program.as_text(), program.memory_analysis()
    said = program.cost_analysis() or {}
    # What goes in is given away, and so comes out in the same place.
    temporary = needs.temp_size_in_bytes + needs.output_size_in_bytes - needs.alias_size_in_bytes
    flops = max(said.get("flops", 0.0), 0.0)
    return Program(text, seconds, needs.argument_size_in_bytes, temporary, flops, asked, read(text, mesh))


def _exhausted(message: str) -> int:
    """The bytes that a compiler found to be too many; 0 if it complains of something else."""
    match = _EXHAUSTED.search(message)
    return int(float(match[1]) * {"K": 2**10, "M": 2**20, "G": 2**30}[match[2]]) if match else 0


def _check_shape(config: Config, topology: Topology, shape: tuple[int, int]) -> None:
    """Every device has a part in the mesh."""
    check_towers(config.mesh, config.network.towers)
    (data, tower), devices = shape, topology.devices
    if data * tower != devices:
        divisors = [n for n in range(1, config.network.towers + 1) if config.network.towers % n == 0]
        fit = [f"--mesh={devices // n}x{n}" for n in divisors if devices % n == 0]
        raise ConfigError(
            f"--mesh={data}x{tower} has {data * tower} devices, {topology} has {devices}; choose "
            f"{' or '.join(fit)}"
        )


def _too_large(
    config: Config, topology: Topology, chip: Chip, shape: tuple[int, int], program: Program
) -> str:
    """The refusal of a batch that does not fit, with one that should: memory grows with it linearly."""
    batch, fixed = config.train.batch_size, memory(with_batch(config, 0), *shape)
    step = shape[0] * max(1, config.train.blocks // shape[0])
    fits = int(0.95 * batch * (chip.memory - fixed) / (program.bytes - fixed)) // step * step
    advice = f"try --batch={fits}" if fits > 0 else "take a chip with more memory"
    return (
        f"--batch={batch} needs {program.bytes / 1e9:.1f} GB on each device of {topology}, which has "
        f"{chip.memory / 1e9:.1f} GB; {advice}"
    )
