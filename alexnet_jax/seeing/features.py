"""What a stage of the network makes of pictures: vectors to compare, or to learn something else from."""

import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from alexnet_jax.config import NetworkConfig
from alexnet_jax.data.picture_files import File, FileBatch
from alexnet_jax.data.progress import Progress
from alexnet_jax.errors import ConfigError, RefusedError
from alexnet_jax.learning.prediction import make_activation_step
from alexnet_jax.network.shapes import stage_names
from alexnet_jax.seeing.opened import Opened
from alexnet_jax.sharding.mesh import DATA
from alexnet_jax.sharding.rows import place_rows

Features = Callable[[np.ndarray], np.ndarray]


def last_hidden(config: NetworkConfig) -> str:
    """The stage below the classifier."""
    return stage_names(config)[-2]


def check_stage(config: NetworkConfig, stage: str) -> None:
    """Refuses a stage that there is not."""
    stages = stage_names(config)
    if stage not in stages:
        raise ConfigError(f"the network has no stage {stage!r}; it has {', '.join(stages)}")


def make_features(opened: Opened, stage: str, most: int) -> Features:
    """What a stage makes of up to `most` pictures u8[b, S, S, 3]: f32[b, ..., units], tower after tower."""
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


def split_features(opened: Opened, stage: str, split: str) -> Generator[tuple[np.ndarray, np.ndarray]]:
    """Features and labels of a whole split, batch by batch, in its order."""
    size, images = opened.config.evaluation.batch_size, opened.packed.images(split)
    features = make_features(opened, stage, min(size, images))
    with Progress(f"{stage} of {split}", images) as progress:
        for first in range(0, images, size):
            pictures, labels = opened.packed.read(split, np.arange(first, min(first + size, images)))
            yield features(pictures), labels
            progress.update(len(labels))


def write_split(opened: Opened, stage: str, split: str, path: Path) -> tuple[int, ...]:
    """`features`, `labels` and `class_names` of a split, in its order."""
    found: list[np.ndarray] = []

    def batches() -> Iterator[np.ndarray]:
        for made, labels in split_features(opened, stage, split):
            found.append(labels)
            yield made

    names = np.array(opened.facts.class_names)
    return _write(path, batches(), lambda: {"labels": np.concatenate(found), "class_names": names})


def write_files(
    opened: Opened, stage: str, files: Iterator[FileBatch], path: Path
) -> tuple[tuple[int, ...], list[File]]:
    """`features` and `pictures`, their names, of the files that can be read; and those that cannot."""
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

    return _write(path, batches(), lambda: {"pictures": np.array(list(map(str, good)), np.str_)}), bad


def _write(
    path: Path, batches: Iterable[np.ndarray], others: Callable[[], dict[str, np.ndarray]]
) -> tuple[int, ...]:
    """Writes `features` and other arrays into an .npz, when all are there; the shape of the features.

    They go to the disk as they come, and never stand in memory together.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with tempfile.TemporaryFile(dir=path.parent) as raw:
            count, shape = 0, ()
            for made in batches:
                raw.write(np.ascontiguousarray(made, "<f4"))
                count, shape = count + len(made), made.shape[1:]
            _zip(temporary, raw, (count, *shape), others())
        temporary.replace(path)
    except OSError as error:
        raise RefusedError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return count, *shape


def _zip(path: Path, raw: BinaryIO, shape: tuple[int, ...], others: dict[str, np.ndarray]) -> None:
    """The raw numbers as an array of this shape, and other arrays, as NumPy reads them."""
    raw.seek(0)
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("features.npy", "w", force_zip64=True) as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            shutil.copyfileobj(raw, file)
        for name, array in others.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
