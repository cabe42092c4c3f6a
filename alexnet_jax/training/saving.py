"""Decides when checkpoints are written, and whether a run goes on where one cannot be."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from alexnet_jax.cluster.agreement import gather_words
from alexnet_jax.config.fields import CheckpointConfig
from alexnet_jax.errors import RefusedError
from alexnet_jax.storage.checkpoint import Checkpoints
from alexnet_jax.storage.workdir import Workdir

Warn = Callable[[str], None]


class Saver:
    """Starts a checkpoint every `period` steps, and waits for it `ahead` steps later."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        workdir: Workdir,
        config: CheckpointConfig,
        warn: Callable[[str], None],
    ):
        self.checkpoints, self.workdir, self.config, self.warn = checkpoints, workdir, config, warn

    def due(self, done: int) -> bool:
        return done % self.config.period == 0

    def finish_due(self, done: int) -> bool:
        """Whether the one under way must be on disk before the run goes further."""
        return done % self.config.period == self.config.ahead

    def start(self, step: int, arrays: Any, progress: dict[str, Any]) -> None:
        """Starts writing; a run may go on without it: there may be room for the next."""
        self.finish()
        with self._tolerated():
            self._write(step, arrays, progress)

    def finish(self) -> None:
        """Waits for the checkpoint under way; if it fails the next one is still tried."""
        with self._tolerated():
            self.checkpoints.wait()

    def now(self, step: int, arrays: Any, progress: dict[str, Any]) -> None:
        """Returns when everything is on disk."""
        self.finish()
        self._write(step, arrays, progress)
        self.checkpoints.wait()

    def _write(self, step: int, arrays: Any, progress: dict[str, Any]) -> None:
        for unwritten in filter(None, gather_words(self.workdir.write_out())):
            raise RefusedError(unwritten)  # no process saves if the first cannot write its metrics
        self.checkpoints.save(step, arrays, progress)

    @contextlib.contextmanager
    def _tolerated(self) -> Iterator[None]:
        """Reports what could not be saved, or ends the run, as the config says."""
        try:
            yield
        except RefusedError as error:
            if self.config.when_full == "end":
                raise
            self.warn(f"not saved: {error}")
