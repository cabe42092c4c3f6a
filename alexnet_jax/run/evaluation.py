"""Error rates over the validation split."""

import contextlib
import functools
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.config import Config
from alexnet_jax.data.batches import EvaluationOrder, PackedSet, open_packed
from alexnet_jax.data.progress import Progress
from alexnet_jax.learning.prediction import make_evaluation_step, make_prediction_step
from alexnet_jax.learning.state import Batch, State
from alexnet_jax.learning.step import no_totals
from alexnet_jax.run.checkpoint import Checkpoints
from alexnet_jax.run.dataset import device_pixels
from alexnet_jax.run.feed import feed
from alexnet_jax.run.start import restore
from alexnet_jax.run.workdir import Workdir

SPLIT = "validation"
Tell = Callable[[int], None]  # hears of pictures that are done


class Evaluator:
    """What a network makes of each picture, counted once whatever the batch and mesh."""

    def __init__(self, config: Config, mesh: Mesh, packed: PackedSet):
        self.config, self.mesh, self.packed = config, mesh, packed
        self.pixels = device_pixels(config, mesh, packed.statistics)
        self.images = packed.images(SPLIT)

    @functools.cached_property
    def step(self) -> Callable:
        return make_evaluation_step(self.config, self.mesh, self.config.evaluation.views)

    def __call__(self, state: State, tell: Tell = lambda _: None) -> dict[str, float]:
        """Loss, top-1 and top-5 error. What `tell` raises ends it."""
        totals = no_totals(self.mesh)
        with contextlib.closing(self._batches()) as batches:
            for batch, real in batches:
                before, totals = totals, self.step(state, totals, self.pixels, batch)
                jax.block_until_ready(before)  # as in training: no more than one waits
                tell(real)
        return totals.means()

    def predict(self, state: State, tell: Tell = lambda _: None) -> tuple[np.ndarray, np.ndarray]:
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
                tell(real)
        return found, labels

    def _batches(self) -> Generator[tuple[Batch, int]]:
        """The batches of the split, and how many of each are pictures."""
        order = EvaluationOrder(self.images, self.config.evaluation.batch_size)
        steps = range(order.batches)
        read = feed(self.packed, SPLIT, order, steps, self.mesh, self.config.data)
        with contextlib.closing(read) as batches:
            for step, batch in enumerate(batches):
                yield batch, order.real(step)


@dataclass(frozen=True)
class Member:
    """A run that is evaluated, at its newest checkpoint or another."""

    workdir: Workdir
    config: Config
    mesh: Mesh
    step: int | None

    def evaluate(self) -> dict[str, Any]:
        """Its figures, with the checkpoint that they are of."""
        step, state, evaluator = self._open()
        with Progress("evaluating", evaluator.images) as progress:
            figures = evaluator(state, progress.update)
        return {"step": step, "images": evaluator.images, "views": self.config.evaluation.views, **figures}

    def predict(self) -> tuple[int, np.ndarray, np.ndarray]:
        """The checkpoint, the log-probabilities that it gives, and the labels."""
        step, state, evaluator = self._open()
        with Progress(f"evaluating {self.workdir.path.name}", evaluator.images) as progress:
            return step, *evaluator.predict(state, progress.update)

    def _open(self) -> tuple[int, State, Evaluator]:
        with contextlib.closing(Checkpoints(self.workdir.checkpoints)) as checkpoints:
            state = restore(checkpoints, self.step, self.config, self.mesh)
        packed = open_packed(self.config.data, self.config.network.classes)
        return int(state.step), state, Evaluator(self.config, self.mesh, packed)
