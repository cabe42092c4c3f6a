"""Records a run for TensorBoard and, if the config names a project, Weights & Biases.

None of it is needed to go on: what cannot be written is lost, said once, and does not end a run.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from clu import metric_writers
from tensorboard.plugins.histogram import metadata

from alexnet_jax.config.changes import leaves
from alexnet_jax.config.fields import Config
from alexnet_jax.network.layers import Params
from alexnet_jax.reporting.summaries import histograms, kernel_picture
from alexnet_jax.reporting.wandb import WandbWriter
from alexnet_jax.storage.workdir import Workdir

TENSORBOARD, WANDB = "TensorBoard", "Weights & Biases"
FAILURES = {TENSORBOARD: (tf.errors.OpError, OSError), WANDB: (Exception,)}  # what writers may end in


class Events:
    """Writers of both; of none in the processes that do not write a run's folder."""

    def __init__(self, workdir: Workdir, config: Config, say: Callable[[str], None]):
        self._say, self._lost = say, set()
        self._writers: dict[str, metric_writers.MetricWriter] = {}
        if workdir.writes:
            self._open(TENSORBOARD, lambda: metric_writers.SummaryWriter(str(workdir.path)))
        if workdir.writes and config.wandb:
            self._open(WANDB, lambda: WandbWriter(config.wandb, workdir.path))

    def config(self, config: Config) -> None:
        """The hyperparameters, once in a run."""
        fields = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in leaves(dataclasses.asdict(config))
        }
        self._each(lambda writer: writer.write_hparams(fields))

    def scalars(self, step: int, values: dict[str, Any]) -> None:
        self._each(lambda writer: writer.write_scalars(step, values))

    def kernels(self, step: int, params: Params) -> None:
        """The kernels of conv1, as a picture."""
        picture = kernel_picture(params["conv1"]["kernel"]) if self._writers else None
        if picture is not None:
            self._each(lambda writer: writer.write_images(step, {"conv1/kernels": picture}))

    def weights(self, step: int, params: Params) -> None:
        """Histograms of all arrays, and the picture."""
        self.kernels(step, params)
        for name, buckets in histograms(params) if self._writers else ():
            kind = metadata.create_summary_metadata(display_name=None, description=None)
            self._each(lambda w, n=name, b=buckets, k=kind: w.write_summaries(step, {n: b}, {n: k}))

    def close(self) -> None:
        self._each(lambda writer: writer.flush())
        self._each(lambda writer: writer.close())

    def _open(self, name: str, make: Callable[[], metric_writers.MetricWriter]) -> None:
        with self._tolerated(name):
            self._writers[name] = make()

    def _each(self, write: Callable[[metric_writers.MetricWriter], None]) -> None:
        for name, writer in self._writers.items():
            with self._tolerated(name):
                write(writer)

    @contextlib.contextmanager
    def _tolerated(self, name: str) -> Iterator[None]:
        """The disk may be full, or the network away: `metrics.jsonl` is what counts."""
        try:
            yield
        except FAILURES[name] as error:
            if name not in self._lost:
                self._say(f"not written for {name}: {getattr(error, 'message', None) or error}")
            self._lost.add(name)
