"""Where a run begins: at its newest checkpoint, with what another run has learnt, or with nothing."""

import contextlib
import dataclasses
from dataclasses import dataclass, field

import jax
from jax.sharding import Mesh

from alexnet_jax.config import Config
from alexnet_jax.errors import RefusedError
from alexnet_jax.learning.metrics import Totals
from alexnet_jax.learning.state import State, abstract_state, init_state, state_shapes
from alexnet_jax.learning.step import no_totals
from alexnet_jax.run.ancestor import CLASSIFIER
from alexnet_jax.run.checkpoint import Checkpoints
from alexnet_jax.run.workdir import Workdir
from alexnet_jax.sharding.mesh import REPLICATED, shard


@dataclass
class Progress:
    """What a run knows besides its arrays; plain values."""

    errors: list[tuple[int, float]] = field(default_factory=list)  # of validations, with their steps
    seconds: float = 0.0  # that it took, over all its starts


def restore_or_start(checkpoints: Checkpoints, config: Config, mesh: Mesh) -> tuple[State, Totals, Progress]:
    """The newest checkpoint, or the beginning: the state, and the figures that are not yet reported."""
    if found := checkpoints.newest(_abstract(config, mesh)):
        return *found.arrays, Progress(**found.progress)
    state = init_state(config, mesh)
    return inherit(state, config, mesh) if config.init_from else state, no_totals(mesh), Progress()


def restore(checkpoints: Checkpoints, step: int | None, config: Config, mesh: Mesh) -> State:
    """What a run had learnt at a step, or until it was last saved, placed on this mesh."""
    return checkpoints.choose(step, _abstract(config, mesh)).arrays[0]


def inherit(state: State, config: Config, mesh: Mesh) -> State:
    """The first state of a run, with the ancestor's newest weights but for the classifier's."""
    ancestor = Workdir(config.init_from)
    with contextlib.closing(Checkpoints(ancestor.checkpoints)) as checkpoints:
        learnt = restore(checkpoints, None, ancestor.read_config(), mesh)
    params = learnt.params | {CLASSIFIER: state.params[CLASSIFIER]}
    return dataclasses.replace(state, params=params, averages=learnt.averages)


def check_fits(before: Config, config: Config) -> None:
    """Refuses what cannot be gone on from, whatever is allowed."""
    shapes = [jax.tree.leaves_with_path(state_shapes(one)) for one in (before, config)]
    old, new = (
        {jax.tree_util.keystr(path, simple=True, separator="/"): x.shape for path, x in one} for one in shapes
    )
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            raise RefusedError(
                f"what this run has learnt does not fit: {name} is {old.get(name)}, this config needs "
                f"{new.get(name)}; choose another --workdir"
            )


def _abstract(config: Config, mesh: Mesh) -> tuple[State, Totals]:
    """What checkpoints hold, without its numbers."""
    place = shard(mesh, REPLICATED)
    totals = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), Totals.zero())
    return abstract_state(config, mesh), totals
