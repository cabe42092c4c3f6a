"""Weights & Biases, where a config names a project: the same figures, pictures and histograms.

WANDB_MODE=offline writes below the run's folder only, for `wandb sync`.
"""

import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from clu import metric_writers

from alexnet_jax.run.account import load_wandb
from alexnet_jax.run.workdir import replace_text

IDENTITY = "wandb_id"  # the file in a run's folder that has its id there


class WandbWriter(metric_writers.MetricWriter):
    """A run of a project; one that was stopped goes on in the same."""

    def __init__(self, project: str, path: Path):
        self._wandb = load_wandb()
        settings = self._wandb.Settings(silent=True, console="off")
        told = {"project": project, "name": path.name, "dir": str(path), "settings": settings}
        self._run = self._wandb.init(id=identity(path), resume="allow", **told)
        # A resumed run tells some steps twice, which their own counter would refuse.
        self._run.define_metric("*", step_metric="step")

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        self._run.log({"step": step, **{name: float(value) for name, value in scalars.items()}})

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        self._run.log({"step": step, **{name: self._wandb.Image(x) for name, x in images.items()}})

    def write_summaries(
        self, step: int, values: Mapping[str, np.ndarray], metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Histograms that are counted already, f64[buckets, 3] of left, right, count; there are no others."""
        del metadata
        told = {}
        for name, buckets in values.items():
            edges = np.append(buckets[:, 0], buckets[-1, 1])
            told[name] = self._wandb.Histogram(np_histogram=(buckets[:, 2], edges))
        self._run.log({"step": step, **told})

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
        """Nothing is held back."""

    def close(self) -> None:
        """Where an error is on its way the run is marked as failed there, until it goes on."""
        self._run.finish(exit_code=int(sys.exc_info()[0] is not None))


def identity(path: Path) -> str:
    """What the run in a folder is called there; drawn once."""
    file = path / IDENTITY
    if not file.exists():
        replace_text(file, secrets.token_hex(4) + "\n")
    return file.read_text().strip()
