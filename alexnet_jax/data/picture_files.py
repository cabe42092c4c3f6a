"""Picture files in batches of one size, decoded by threads ahead of their use, each with its name."""

import collections
import contextlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NoReturn

import numpy as np

from alexnet_jax.data.any_picture import SUFFIXES, read_any
from alexnet_jax.data.squares import BadPicture
from alexnet_jax.errors import RefusedError

AHEAD = 2  # batches that are decoded, or about to be, before they are asked for
MOST_THREADS = 16  # each may need 200 MB for a large photograph

File = tuple[Path, str]  # and why it cannot be used, where it cannot


@dataclass(frozen=True)
class FileBatch:
    """Files in their order, and a row for each that can be used; the rows that are left over are black."""

    files: tuple[File, ...]
    pictures: np.ndarray  # u8[B, S, S, 3]


def find_pictures(words: Sequence[str]) -> list[Path]:
    """The files that are named, and in folders that are named those that are called as pictures are."""
    return [path for word in words for path in _find(word)]


@contextlib.contextmanager
def read_files(paths: Sequence[Path], size: int, batch_size: int) -> Iterator[Iterator[FileBatch]]:
    """The batches of all files; threads begin with them at once, and end with the context."""
    pool, left = ThreadPoolExecutor(min(os.cpu_count(), MOST_THREADS)), iter(paths)
    waiting: collections.deque[tuple[Path, Future]] = collections.deque()

    def start(count: int) -> None:
        waiting.extend((path, pool.submit(_read, path, size)) for path in islice(left, count))

    def decoded() -> Iterator[tuple[Path, np.ndarray | str]]:
        while waiting:
            path, future = waiting.popleft()
            start(1)
            yield path, future.result()

    start(AHEAD * batch_size)
    try:
        yield _batches(decoded(), size, batch_size)
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(
    decoded: Iterator[tuple[Path, np.ndarray | str]], size: int, batch_size: int
) -> Iterator[FileBatch]:
    files, rows = [], []
    for path, found in decoded:
        files.append((path, found if isinstance(found, str) else ""))
        rows += [] if isinstance(found, str) else [found]
        if len(rows) == batch_size:
            yield FileBatch(tuple(files), np.stack(rows))
            files, rows = [], []
    if files:
        pictures = np.zeros((batch_size, size, size, 3), np.uint8)
        pictures[: len(rows)] = np.reshape(rows, (-1, size, size, 3))
        yield FileBatch(tuple(files), pictures)


def _read(path: Path, size: int) -> np.ndarray | str:
    """The square of a picture, or why there is none."""
    try:
        if path.exists() and not path.is_file():
            return "no file"  # a pipe would keep its reader waiting
        with path.open("rb") as file:
            return read_any(file, size)
    except BadPicture as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)


def _find(word: str) -> list[Path]:
    try:
        path = Path(word).expanduser()
        if not path.is_dir():
            os.lstat(path)  # what a link leads to may be missing, like a file of many that is damaged
            return [path]
    except (OSError, RuntimeError, ValueError) as error:  # the last are of ~somebody, and of a null byte
        raise RefusedError(f"there is no picture or folder {word}") from error
    found = sorted(_walk(path))
    if not found:
        raise RefusedError(
            f"there is no picture in the folder {word}: no file in it is called *.jpg or the like"
        )
    return found


def _walk(path: Path) -> Iterator[Path]:
    """Yields the files with a picture's suffix, at any depth; not hidden ones, such as thumbnails."""
    for folder, folders, names in os.walk(path, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(folder, name)


def _refuse(error: OSError) -> NoReturn:
    raise RefusedError(f"cannot look into {error.filename}: {error.strerror}") from error
