"""Where a run begins: at its newest checkpoint, with what another run has learnt, or with nothing."""

import contextlib
import dataclasses

import jax
from jax.sharding import Mesh

from alexnet_jax.config import Config
from alexnet_jax.learning.metrics import Totals
from alexnet_jax.learning.step import State, abstract_state, init_state, no_totals
from alexnet_jax.mesh import EVERYWHERE, shard
from alexnet_jax.run.ancestor import CLASSIFIER
from alexnet_jax.run.checkpoint import Checkpoints
from alexnet_jax.run.workdir import Workdir

# State, figures not yet reported, validation errors so far.
Saved = tuple[State, Totals, list[float]]


def restore_or_start(checkpoints: Checkpoints, config: Config, mesh: Mesh) -> Saved:
    """The newest checkpoint, or the beginning."""
    latest = checkpoints.latest()
    if latest is not None:
        return restore(checkpoints, latest, config, mesh)
    state = init_state(config, mesh)
    return inherit(state, config, mesh) if config.init_from else state, no_totals(mesh), []


def restore(checkpoints: Checkpoints, step: int, config: Config, mesh: Mesh) -> Saved:
    """What a run had saved at a step, placed on this mesh."""
    place = shard(mesh, EVERYWHERE)
    totals = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), Totals.zero())
    (state, totals), progress = checkpoints.restore(step, (abstract_state(config, mesh), totals))
    return state, totals, progress["validation_errors"]


def inherit(state: State, config: Config, mesh: Mesh) -> State:
    """The first state of a run, with the ancestor's newest weights but for the classifier's."""
    ancestor = Workdir(config.init_from)
    with contextlib.closing(Checkpoints(ancestor.checkpoints)) as checkpoints:
        learnt, _, _ = restore(checkpoints, checkpoints.choose(None), ancestor.read_config(), mesh)
    params = learnt.params | {CLASSIFIER: state.params[CLASSIFIER]}
    return dataclasses.replace(state, params=params, averages=learnt.averages)
