"""Features: the activations of a stage, as vectors to compare or to learn from."""

import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path

import numpy as np

from alexnet_jax.config.fields import NetworkConfig
from alexnet_jax.data.picture_files import File, FileBatch
from alexnet_jax.data.progress import Progress
from alexnet_jax.errors import ConfigError, RefusedError
from alexnet_jax.learning.prediction import make_activation_step
from alexnet_jax.network.shapes import stage_names
from alexnet_jax.sharding.mesh import DATA
from alexnet_jax.sharding.rows import place_rows
from alexnet_jax.trained.opened import TrainedRun

Features = Callable[[np.ndarray], np.ndarray]


def last_hidden(config: NetworkConfig) -> str:
    """The stage below the classifier."""
    return stage_names(config)[-2]


def check_stage(config: NetworkConfig, stage: str) -> None:
    """Refuses a stage that there is not."""
    stages = stage_names(config)
    if stage not in stages:
        raise ConfigError(f"the network has no stage {stage!r}; it has {', '.join(stages)}")


def make_features(opened: TrainedRun, stage: str, most: int) -> Features:
    """The activations f32[b, ..., units] of a stage for up to `most` pictures, tower after tower."""
    check_stage(opened.config.network, stage)
    rows = opened.mesh.shape[DATA]
    size = -(-most // rows) * rows
    step = make_activation_step(opened.config, opened.mesh, (stage,))
    units = opened.config.network.classes if stage == "fc8" else None  # of which some are there to fill up

    def features(pictures: np.ndarray) -> np.ndarray:
        count = len(pictures)
        filled = np.concatenate([pictures, np.zeros((size - count, *pictures.shape[1:]), np.uint8)])
        placed = place_rows(opened.mesh, np.arange(size), filled, size)
        made = np.asarray(step(opened.state, opened.pixels, placed)[stage])
        return np.concatenate(list(made), axis=-1)[:count, ..., :units]

    return features


def split_features(opened: TrainedRun, stage: str, split: str) -> Generator[tuple[np.ndarray, np.ndarray]]:
    """Features and labels of a whole split, batch by batch, in its order."""
    size, images = opened.config.evaluation.batch_size, opened.packed.images(split)
    features = make_features(opened, stage, min(size, images))
    with Progress(f"{stage} of {split}", images) as progress:
        for first in range(0, images, size):
            pictures, labels = opened.packed.read(split, np.arange(first, min(first + size, images)))
            yield features(pictures), labels
            progress.update(len(labels))


def write_split(opened: TrainedRun, stage: str, split: str, path: Path) -> tuple[int, ...]:
    """`features`, `labels` and `class_names` of a split, in its order."""
    found: list[np.ndarray] = []

    def batches() -> Iterator[np.ndarray]:
        for made, labels in split_features(opened, stage, split):
            found.append(labels)
            yield made

    names = np.array(opened.facts.class_names)
    count = opened.packed.images(split)
    return _write(path, batches(), count, lambda: {"labels": np.concatenate(found), "class_names": names})


def write_files(
    opened: TrainedRun, stage: str, files: Iterator[FileBatch], most: int, path: Path
) -> tuple[tuple[int, ...], list[File]]:
    """`features` and `pictures` (names) of the files that can be read, at `most` so many; and the others."""
    good: list[Path] = []
    bad: list[File] = []

    def batches() -> Iterator[np.ndarray]:
        features = None
        for batch in files:
            features = features or make_features(opened, stage, len(batch.pictures))
            here = [name for name, error in batch.files if not error]
            bad.extend((name, error) for name, error in batch.files if error)
            good.extend(here)
            yield features(batch.pictures)[: len(here)]

    shape = _write(path, batches(), most, lambda: {"pictures": np.array(list(map(str, good)), np.str_)})
    return shape, bad


def _write(
    path: Path, batches: Iterable[np.ndarray], most: int, others: Callable[[], dict[str, np.ndarray]]
) -> tuple[int, ...]:
    """Writes `features`, at `most` so many, and other arrays into an .npz; the shape of the features.

    They go to the disk as they come, and never stand in memory together.
    """
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".features-") as folder:
            features, count = None, 0
            for made in batches:
                if features is None:
                    shape, name = (most, *made.shape[1:]), Path(folder, "features.npy")
                    features = np.lib.format.open_memmap(name, "w+", np.float32, shape)
                features[count : count + len(made)] = made
                count += len(made)
            found = np.zeros((0,), np.float32) if features is None else features[:count]
            np.savez(Path(folder, "whole.npz"), features=found, **others())
            Path(folder, "whole.npz").replace(path)
    except OSError as error:
        raise RefusedError(f"cannot write {path}: {error.strerror or error}") from error
    return found.shape
