"""Classifies pictures from anywhere by a run's network."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.config.fields import EvaluationConfig
from alexnet_jax.data.picture_files import FileBatch
from alexnet_jax.learning.prediction import make_prediction_step
from alexnet_jax.sharding.mesh import DATA
from alexnet_jax.sharding.rows import place_rows
from alexnet_jax.trained.opened import TrainedRun

TOP = 5
MOST = 32  # pictures in a batch: while it is computed the next is decoded


@dataclass(frozen=True)
class Answer:
    """The likeliest classes of a picture, the first of them first, or why there are none."""

    path: Path
    classes: tuple[tuple[int, str, float], ...]  # number, name, probability
    error: str

    def as_dict(self) -> dict[str, Any]:
        """The answer as it is written in JSON."""
        if self.error:
            return {"picture": str(self.path), "error": self.error}
        names = ("class", "name", "probability")
        return {
            "picture": str(self.path),
            "classes": [dict(zip(names, one, strict=True)) for one in self.classes],
        }


class Predictor:
    """An opened run's network: the log-probabilities of batches of one size."""

    def __init__(self, opened: TrainedRun):
        self.opened, config = opened, opened.config
        self.step = make_prediction_step(config, opened.mesh, config.evaluation.views)

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """f32[B, classes] of u8[B, S, S, 3]."""
        placed = place_rows(self.opened.mesh, np.arange(len(pictures)), pictures, len(pictures))
        return jax.device_get(self.step(self.opened.state, self.opened.pixels, placed))

    def answers(self, batches: Iterator[FileBatch]) -> Iterator[Answer]:
        """Yields an answer for each file, in order."""
        for batch in batches:
            usable = any(not error for _, error in batch.files)
            rows = iter(self(batch.pictures) if usable else ())
            for path, error in batch.files:
                yield Answer(path, () if error else self._top(next(rows)), error)

    def _top(self, log_probabilities: np.ndarray) -> tuple[tuple[int, str, float], ...]:
        classes, shares = likeliest(log_probabilities)
        names = (self.opened.facts.class_names[i] for i in classes)
        return tuple(zip(classes.tolist(), names, shares.tolist(), strict=True))


def likeliest(log_probabilities: np.ndarray, count: int = TOP) -> tuple[np.ndarray, np.ndarray]:
    """The classes [..., count] of the highest probabilities, and these; of equal ones the first class."""
    order = np.argsort(-log_probabilities, axis=-1, kind="stable")[..., :count]
    return order, np.exp(np.take_along_axis(log_probabilities, order, axis=-1).astype(np.float64))


def batch_size(pictures: int, config: EvaluationConfig, mesh: Mesh) -> int:
    """A batch size for which the last batch is nearly full."""
    rows = mesh.shape[DATA]
    batches = -(-pictures // min(MOST, config.batch_size))
    return -(-pictures // (batches * rows)) * rows
