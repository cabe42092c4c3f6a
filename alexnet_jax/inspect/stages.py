"""Activations and gradients of a run's network by stage and tower, and its scores."""

import contextlib
import functools
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.config.fields import Config
from alexnet_jax.errors import ConfigError
from alexnet_jax.learning.prediction import (
    ActivationStep,
    StatisticsStep,
    TowerStatistics,
    make_activation_step,
    make_statistics_step,
)
from alexnet_jax.learning.state import Batch
from alexnet_jax.network.shapes import stage_names
from alexnet_jax.sharding.mesh import DATA
from alexnet_jax.sharding.rows import check_batch
from alexnet_jax.text import columns
from alexnet_jax.trained.opened import TrainedRun

SPLIT, LAST = "validation", "fc8"
HEADINGS = ("stage", "tower", "mean", "deviation", "zeros", "norm", "gradient mean", "deviation", "norm")


@dataclass(frozen=True)
class Response:
    """Statistics of a stage in a tower: of its activations, and of the gradient of the loss there."""

    stage: str
    tower: int
    activation: TowerStatistics  # of floats
    gradient: TowerStatistics


def responses(run: TrainedRun, pictures: int | None = None) -> str:
    """A table of them; of as many validation pictures as are evaluated at a time, if nothing is said."""
    found = measured(run, first_pictures(run, pictures))
    cells = [HEADINGS]
    for one in found:
        seen, gradient = one.activation, one.gradient
        figures = (seen.mean, seen.deviation, seen.zeros, seen.norm)
        figures += (gradient.mean, gradient.deviation, gradient.norm)
        head = (one.stage if one.tower == 0 else "", str(one.tower))
        cells.append((*head, *(f"{figure:.4g}" for figure in figures)))
    return "\n".join(columns(cells, right=tuple(range(1, len(HEADINGS)))))


def measured(run: TrainedRun, batch: Batch) -> list[Response]:
    """Every stage of every tower: of centre views, without dropout."""
    looks = jax.device_get(_look_step(run.config, run.mesh)(run.state, run.pixels, batch))
    return [
        Response(name, t, *(jax.tree.map(lambda x, t=t: float(x[t]), look) for look in looks[name]))
        for name in stage_names(run.config.network)
        for t in range(run.config.network.towers)
    ]


def scores(run: TrainedRun, pictures: int | None = None) -> np.ndarray:
    """The scores of each class, before the softmax, for the same pictures."""
    batch = first_pictures(run, pictures)
    found = _score_step(run.config, run.mesh)(run.state, run.pixels, batch.pictures)[LAST]
    return np.concatenate(np.asarray(found), axis=-1)[:, : run.config.network.classes]


def first_pictures(run: TrainedRun, pictures: int | None = None) -> Batch:
    """The first validation pictures, on the mesh."""
    there = run.packed.images(SPLIT)
    if pictures is None:
        rows = run.mesh.shape[DATA]
        pictures = min(run.config.evaluation.batch_size, there) // rows * rows
    if not 0 < pictures <= there:
        raise ConfigError(f"pictures={pictures} must be from 1 to {there}, the pictures to validate")
    check_batch(run.mesh.shape[DATA], "pictures", pictures)
    # Here, as they bring TensorFlow, which whoever looks at parameters need not wait for.
    from alexnet_jax.data.batches import EvaluationOrder
    from alexnet_jax.training.feed import feed

    order = EvaluationOrder(there, pictures)
    with contextlib.closing(feed(run.packed, SPLIT, order, range(1), run.mesh, run.config.data)) as batches:
        return next(batches)


@functools.cache
def _look_step(config: Config, mesh: Mesh) -> StatisticsStep:
    return make_statistics_step(config, mesh)


@functools.cache
def _score_step(config: Config, mesh: Mesh) -> ActivationStep:
    return make_activation_step(config, mesh, (LAST,))
