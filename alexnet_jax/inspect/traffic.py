"""The collectives of a run's training step, on the mesh that it is inspected on."""

import collections
import functools

from jax.sharding import Mesh

from alexnet_jax.config.fields import Config
from alexnet_jax.errors import ConfigError
from alexnet_jax.planning.arithmetic import exchanged
from alexnet_jax.planning.collectives import OTHER, totals
from alexnet_jax.planning.compiling import Program, compile_step
from alexnet_jax.planning.page import communication_lines
from alexnet_jax.sharding.mesh import DATA, TOWER
from alexnet_jax.trained.opened import TrainedRun


def communication(run: TrainedRun) -> str:
    """The collectives of the compiled step: operation, axis, devices, bytes, the layers that each serves."""
    return "\n".join(communication_lines(run.config, run.mesh.devices.shape, compiled_step(run)))


def compiled_step(run: TrainedRun) -> Program:
    """The step, compiled once for a run and a mesh, with the collectives that were `asked` for and `done`."""
    train, data = run.config.train, run.mesh.shape[DATA]
    cut = train.blocks or train.batch_size
    if cut % data:
        fit = [str(n) for n in range(1, data) if cut % n == 0]
        what = f"{train.blocks} blocks" if train.blocks else f"{train.batch_size} pictures"
        raise ConfigError(
            f"this run computes a batch in {what}, which do not divide over {data} data rows; choose a "
            f"mesh of {' or '.join(fit[-3:])} rows"
        )
    return _compiled(run.config, run.mesh)


def counted(run: TrainedRun) -> dict[tuple[str, str], int]:
    """The number of operations of a kind along an axis in the compiled step."""
    return dict(collections.Counter((one.kind, one.axis) for one in compiled_step(run).done))


def by_layer(run: TrainedRun) -> dict[tuple[str, str], tuple[int, int]]:
    """Bytes by (axis, layer) that a device gives to each other one: as asked for, and by arithmetic."""
    asked = totals(compiled_step(run).asked)
    wanted = exchanged(run.config, run.mesh.shape[DATA], run.mesh.shape[TOWER])
    names = [name for name in {**asked, **wanted} if name[1] != OTHER]
    return {name: (asked.get(name, 0), wanted.get(name, 0)) for name in names}


@functools.cache
def _compiled(config: Config, mesh: Mesh) -> Program:
    return compile_step(config, mesh)
