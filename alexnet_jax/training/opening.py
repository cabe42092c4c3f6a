"""Opening a run: at its newest checkpoint, with what another run has learnt, or from its seed."""

import contextlib
import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
from jax.sharding import Mesh

from alexnet_jax.config.changes import Change
from alexnet_jax.config.fields import CLASSIFIER, Config
from alexnet_jax.errors import ConfigError, RefusedError
from alexnet_jax.learning.metrics import Totals
from alexnet_jax.learning.state import State, abstract_state, init_state, state_shapes
from alexnet_jax.learning.step import Health, no_totals
from alexnet_jax.sharding.mesh import REPLICATED, shard
from alexnet_jax.storage.checkpoint import Checkpoints
from alexnet_jax.storage.facts import DatasetFacts, save_facts
from alexnet_jax.storage.workdir import Workdir

if TYPE_CHECKING:  # it brings TensorFlow, which readers of a run need not wait for
    from alexnet_jax.data.batches import PackedSet


@dataclass
class Run:
    """The part of a run that changes; all but `health` is in its checkpoints."""

    state: State
    totals: Totals  # of the steps that are not reported yet
    errors: list[tuple[int, float]] = field(default_factory=list)  # of validations, with their steps
    seconds: float = 0.0  # that it took, over all its starts
    health: Health | None = None  # of the newest step

    @property
    def arrays(self) -> tuple[State, Totals]:
        return self.state, self.totals

    def progress(self, seconds: float) -> dict[str, Any]:
        return {"errors": self.errors, "seconds": seconds}

    @property
    def validated(self) -> int:
        """The step of the last validation."""
        return self.errors[-1][0] if self.errors else 0

    @property
    def best(self) -> int | None:
        """The step of the lowest validation error, the first of several."""
        return min(self.errors, key=lambda pair: pair[1], default=[None])[0]


def open_run(
    config: Config, workdir: Workdir, packed: "PackedSet", mesh: Mesh, checkpoints: Checkpoints
) -> tuple[Run, list[Change]]:
    """The run in a folder, and the changes of its config.

    Refuses first, then restores, and only then writes: the config, the facts of the data set, and the logs
    without the lines that will be written again.
    """
    if workdir.begun:
        check_fits(workdir.read_config(), config)
    run = restore_or_start(checkpoints, config, mesh)
    first, total = int(run.state.step), config.train.length(packed.images("train"))
    if first > total:
        raise ConfigError(f"{workdir.path} is at step {first} already, past the {total} asked for")
    changed = workdir.changes(config)
    workdir.write_config(config)
    save_facts(workdir, DatasetFacts(packed.statistics, tuple(packed.class_names)))
    workdir.forget_after(first, run.validated)
    return run, changed


def restore_or_start(checkpoints: Checkpoints, config: Config, mesh: Mesh) -> Run:
    """The newest checkpoint, or the beginning."""
    if found := checkpoints.newest(_abstract(config, mesh)):
        return Run(*found.arrays, **found.progress)
    state = init_state(config, mesh)
    return Run(inherit(state, config, mesh) if config.init_from else state, no_totals(mesh))


def restore(checkpoints: Checkpoints, step: int | None, config: Config, mesh: Mesh) -> State:
    """The state of a run at a step, or when it was last saved, placed on this mesh."""
    return checkpoints.choose(step, _abstract(config, mesh)).arrays[0]


def inherit(state: State, config: Config, mesh: Mesh) -> State:
    """The first state of a run, with the ancestor's newest weights but for the classifier's."""
    ancestor = Workdir(config.init_from)
    with contextlib.closing(Checkpoints(ancestor.checkpoints)) as checkpoints:
        learnt = restore(checkpoints, None, ancestor.read_config(), mesh)
    params = learnt.params | {CLASSIFIER: state.params[CLASSIFIER]}
    return dataclasses.replace(state, params=params, averages=learnt.averages)


def check_fits(before: Config, config: Config) -> None:
    """Refuses a config whose arrays have other shapes, whatever is allowed."""
    shapes = [jax.tree.leaves_with_path(state_shapes(one)) for one in (before, config)]
    old, new = (
        {jax.tree_util.keystr(path, simple=True, separator="/"): x.shape for path, x in one} for one in shapes
    )
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            raise RefusedError(
                f"the run's state does not fit: {name} is {old.get(name)}, this config needs "
                f"{new.get(name)}; choose another --workdir"
            )


def _abstract(config: Config, mesh: Mesh) -> tuple[State, Totals]:
    """The arrays of a checkpoint, without their numbers."""
    place = shard(mesh, REPLICATED)
    totals = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), Totals.zero())
    return abstract_state(config, mesh), totals
