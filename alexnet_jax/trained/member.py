"""A trained run that is evaluated, alone or as a member of an ensemble."""

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.sharding import Mesh

from alexnet_jax.config.fields import Config
from alexnet_jax.data.batches import open_packed
from alexnet_jax.data.progress import Progress
from alexnet_jax.learning.state import State
from alexnet_jax.storage.checkpoint import Checkpoints
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.training.evaluation import Evaluator
from alexnet_jax.training.opening import restore


@dataclass(frozen=True)
class Member:
    """A run that is evaluated, at its newest checkpoint or another."""

    workdir: Workdir
    config: Config
    mesh: Mesh
    step: int | None

    def evaluate(self) -> dict[str, Any]:
        """Metrics, with the step of the checkpoint."""
        step, state, evaluator = self._open()
        with Progress("evaluating", evaluator.images) as progress:
            metrics = evaluator(state, progress.update)
        return {"step": step, "images": evaluator.images, "views": self.config.evaluation.views, **metrics}

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
