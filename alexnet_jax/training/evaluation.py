"""Error rates over the validation split."""

import contextlib
import functools
from collections.abc import Callable, Generator

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.config.fields import Config
from alexnet_jax.data.batches import EvaluationOrder, PackedSet
from alexnet_jax.learning.prediction import make_evaluation_step, make_prediction_step
from alexnet_jax.learning.state import Batch, State
from alexnet_jax.learning.step import no_totals
from alexnet_jax.storage.facts import device_pixels
from alexnet_jax.training.feed import feed

SPLIT = "validation"
Progress = Callable[[int], None]  # called with the number of pictures that are done


class Evaluator:
    """Evaluates a network on each picture once, whatever the batch and mesh."""

    def __init__(self, config: Config, mesh: Mesh, packed: PackedSet):
        self.config, self.mesh, self.packed = config, mesh, packed
        self.pixels = device_pixels(config.augment, mesh, packed.statistics)
        self.images = packed.images(SPLIT)

    @functools.cached_property
    def step(self) -> Callable:
        return make_evaluation_step(self.config, self.mesh, self.config.evaluation.views)

    def __call__(self, state: State, progress: Progress = lambda _: None) -> dict[str, float]:
        """Loss, top-1 and top-5 error. An exception of `progress` ends it."""
        totals = no_totals(self.mesh)
        with contextlib.closing(self._batches()) as batches:
            for batch, real in batches:
                before, totals = totals, self.step(state, totals, self.pixels, batch)
                jax.block_until_ready(before)  # as in training: no more than one waits
                progress(real)
        return totals.means()

    def predict(self, state: State, progress: Progress = lambda _: None) -> tuple[np.ndarray, np.ndarray]:
        """The log-probabilities f32[images, classes] that it gives, and the labels."""
        step = make_prediction_step(self.config, self.mesh, self.config.evaluation.views)
        found = np.empty((self.images, self.config.network.classes), np.float32)
        labels, done = np.empty(self.images, np.int32), 0
        with contextlib.closing(self._batches()) as batches:
            for batch, real in batches:
                rows = slice(done, done + real)
                found[rows] = np.asarray(step(state, self.pixels, batch.pictures))[:real]
                labels[rows] = np.asarray(batch.labels)[:real]
                done += real
                progress(real)
        return found, labels

    def _batches(self) -> Generator[tuple[Batch, int]]:
        """The batches of the split, and how many of each are pictures."""
        order = EvaluationOrder(self.images, self.config.evaluation.batch_size)
        steps = range(order.batches)
        read = feed(self.packed, SPLIT, order, steps, self.mesh, self.config.data)
        with contextlib.closing(read) as batches:
            for step, batch in enumerate(batches):
                yield batch, order.real(step)
