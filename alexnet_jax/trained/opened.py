"""A trained run, opened to be read: its config, its state at a step, on any mesh, and its pictures."""

import contextlib
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jax.sharding import Mesh

from alexnet_jax.config.fields import Config
from alexnet_jax.data.packed import refuse_early
from alexnet_jax.data.progress import Progress
from alexnet_jax.errors import RefusedError
from alexnet_jax.learning.augment import Pixels
from alexnet_jax.learning.state import State
from alexnet_jax.sharding.mesh import DATA, open_mesh
from alexnet_jax.sharding.rows import check_batch
from alexnet_jax.storage.checkpoint import Checkpoints
from alexnet_jax.storage.facts import DatasetFacts, device_pixels, open_facts
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.training.opening import restore

SPLIT = "validation"

if TYPE_CHECKING:
    from alexnet_jax.data.batches import PackedSet
    from alexnet_jax.training.evaluation import Evaluator


@dataclass(frozen=True)
class TrainedRun:
    """A run that is opened to be read; `state` lies on `mesh`."""

    workdir: Workdir
    config: Config
    mesh: Mesh
    state: State

    @property
    def step(self) -> int:
        return int(self.state.step)

    @functools.cached_property
    def packed(self) -> "PackedSet":
        """The run's data set; opened when it is asked for, with TensorFlow, which takes seconds to import."""
        refuse_early(self.config.data, self.config.network.classes)
        from alexnet_jax.data.batches import open_packed

        return open_packed(self.config.data, self.config.network.classes)

    def picture(self, row: int) -> tuple[np.ndarray, str]:
        """A picture u8[S, S, 3] of the validation split, and what it is."""
        count = self.packed.images(SPLIT)
        if not 0 <= row < count:
            there = f"the {count:,} for validation; choose 0 to {count - 1}"
            raise RefusedError(f"there is no picture {row} in {there}")
        (picture,), (label,) = self.packed.read(SPLIT, np.array([row]))
        return picture, f"Validation picture {row:,} ({self.packed.class_names[label]})"

    def evaluate(self) -> dict[str, Any]:
        """Metrics over the validation split, with the step."""
        evaluator = self._evaluator()
        with Progress("evaluating", evaluator.images) as progress:
            metrics = evaluator(self.state, progress.update)
        views = self.config.evaluation.views
        return {"step": self.step, "images": evaluator.images, "views": views, **metrics}

    @functools.cached_property
    def answers(self) -> tuple[np.ndarray, np.ndarray]:
        """Log-probabilities f32[images, classes] for the validation split, and its labels."""
        evaluator = self._evaluator()
        with Progress(f"evaluating {self.workdir.path.name}", evaluator.images) as progress:
            return evaluator.predict(self.state, progress.update)

    def _evaluator(self) -> "Evaluator":
        from alexnet_jax.training.evaluation import Evaluator

        check_batch(self.mesh.shape[DATA], "evaluation.batch_size", self.config.evaluation.batch_size)
        return Evaluator(self.config, self.mesh, self.packed)

    @functools.cached_property
    def facts(self) -> DatasetFacts:
        """The facts of its pictures, also where its data set is not."""
        return open_facts(self.workdir, self.config)

    @functools.cached_property
    def pixels(self) -> Pixels:
        """The statistics of its training pictures, on every device."""
        return device_pixels(self.config.augment, self.mesh, self.facts.statistics)


def load_run(
    workdir: Workdir, step: int | None = None, mesh: Mesh | None = None, config: Config | None = None
) -> TrainedRun:
    """A run at a step, or at its newest checkpoint; on its own mesh and by its own config, or by others."""
    config = config or workdir.read_config()
    mesh = open_mesh(config.mesh, config.network.towers) if mesh is None else mesh
    with contextlib.closing(Checkpoints(workdir.checkpoints)) as checkpoints:
        return TrainedRun(workdir, config, mesh, restore(checkpoints, step, config, mesh))
