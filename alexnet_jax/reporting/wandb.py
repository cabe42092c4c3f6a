"""Weights & Biases, where a config names a project: the same metrics, pictures and histograms.

WANDB_MODE=offline writes below the run's folder only, for `wandb sync`.
"""

import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from clu import metric_writers

from alexnet_jax.reporting.account import load_wandb
from alexnet_jax.storage.files import replace_text

IDENTITY = "wandb_id"  # the file in a run's folder that has its id there


class WandbWriter(metric_writers.MetricWriter):
    """A run of a project; one that was stopped goes on in the same."""

    def __init__(self, project: str, path: Path):
        self._wandb = load_wandb()
        quiet = self._wandb.Settings(silent=True, console="off")
        settings = {"project": project, "name": path.name, "dir": str(path)}
        self._run = self._wandb.init(id=identity(path), resume="allow", settings=quiet, **settings)
        # A resumed run logs some steps twice, which their own counter would refuse.
        self._run.define_metric("*", step_metric="step")

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        self._run.log({"step": step, **{name: float(value) for name, value in scalars.items()}})

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        self._run.log({"step": step, **{name: self._wandb.Image(x) for name, x in images.items()}})

    def write_summaries(
        self, step: int, values: Mapping[str, np.ndarray], metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Logs histograms that are counted already, f64[buckets, 3] of left, right, count."""
        del metadata
        found = {}
        for name, buckets in values.items():
            edges = np.append(buckets[:, 0], buckets[-1, 1])
            found[name] = self._wandb.Histogram(np_histogram=(buckets[:, 2], edges))
        self._run.log({"step": step, **found})

    def write_histograms(
        self, step: int, arrays: Mapping[str, np.ndarray], num_buckets: Mapping[str, int] | None = None
    ) -> None:
        del num_buckets
        self._run.log({"step": step, **{name: self._wandb.Histogram(x) for name, x in arrays.items()}})

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        self._run.log({"step": step, **texts})

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        self._run.config.update(dict(hparams), allow_val_change=True)

    def write_videos(self, step: int, videos: Mapping[str, Any]) -> None:
        raise NotImplementedError("a run has no videos")

    def write_audios(self, step: int, audios: Mapping[str, Any], *, sample_rate: int) -> None:
        raise NotImplementedError("a run has no sounds")

    def flush(self) -> None:
        """Does nothing: nothing is buffered."""

    def close(self) -> None:
        """Finishes; while an exception is handled the run is marked as failed, until it resumes."""
        self._run.finish(exit_code=int(sys.exc_info()[0] is not None))


def identity(path: Path) -> str:
    """The id of the run in a folder; drawn once."""
    file = path / IDENTITY
    if not file.exists():
        replace_text(file, secrets.token_hex(4) + "\n")
    return file.read_text().strip()
