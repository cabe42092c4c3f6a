"""Files become batches in their order, whatever is among them."""

import os
from pathlib import Path

import numpy as np
import pytest

from alexnet_jax.data.picture_files import FileBatch, find_pictures, read_files
from alexnet_jax.errors import RefusedError
from tests.data.images import encoded


def grey(path: Path, level: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(np.full((9, 9, 3), level, np.uint8), "PNG"))
    return path


def bad(path: Path) -> Path:
    path.write_text("no picture")
    return path


def read(paths: list[Path], size: int) -> list[FileBatch]:
    with read_files(paths, 8, size) as batches:
        return list(batches)


def levels(batch: FileBatch) -> list[int]:
    assert (batch.pictures == batch.pictures[:, :1, :1, :1]).all()
    return batch.pictures[:, 0, 0, 0].tolist()


def test_bad_files_take_no_rows(tmp_path: Path) -> None:
    """Named where they stand; the last rows are filled up with black."""
    paths = [grey(tmp_path / f"{i}.png", 10 + i) for i in range(40)]
    for i in (0, 4, 5, 39):
        bad(paths[i])
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    batches = read([*paths, pipe, tmp_path / "gone.png"], 8)
    good = [10 + i for i in range(40) if i not in (0, 4, 5, 39)]
    assert [level for batch in batches for level in levels(batch)] == [*good, *[0] * 4]
    files = [file for batch in batches for file in batch.files]
    assert [path for path, _ in files] == [*paths, pipe, tmp_path / "gone.png"]
    whys = {path.name: why for path, why in files if why}
    foreign = dict.fromkeys(("0.png", "4.png", "5.png", "39.png"), "no picture of a kind that can be read")
    assert whys == foreign | {"pipe.png": "no file", "gone.png": "No such file or directory"}


def test_nothing_but_bad_files(tmp_path: Path) -> None:
    [batch] = read([bad(tmp_path / "a.png")], 4)
    assert levels(batch) == [0] * 4 and len(batch.files) == 1


def test_who_leaves_early(tmp_path: Path) -> None:
    """The threads end too, without reading what is left."""
    paths = [grey(tmp_path / f"{i}.png", i) for i in range(100)]
    with read_files(paths, 8, 4) as batches:
        assert levels(next(batches)) == [0, 1, 2, 3]


def test_folders(tmp_path: Path) -> None:
    """All that is called as pictures are, however deep, sorted; hidden files and others are left alone."""
    names = ("b/2.PNG", "b/10.jpeg", "a/deep/er/1.webp", "c.gif", "a.tif")
    for name in (*names, ".x/y.png", "a/.thumb.png", "notes.txt", "a/no_suffix"):
        grey(tmp_path / name, 1)
    found = [str(path.relative_to(tmp_path)) for path in find_pictures([str(tmp_path)])]
    assert found == sorted(names, key=lambda name: Path(name).parts)
    again = find_pictures([str(tmp_path / "notes.txt"), str(tmp_path / "b")])
    assert [path.name for path in again] == ["notes.txt", "10.jpeg", "2.PNG"]
    for word in (tmp_path / "nowhere", "~nobody/x", "a\0b"):
        with pytest.raises(RefusedError, match="there is no picture or folder"):
            find_pictures([str(word)])
