"""Folders that are missing, in use, damaged or too small, each in a line; and nothing is changed in them."""

import dataclasses
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from etils import epath

from alexnet_jax.config.fields import Config
from alexnet_jax.data.packed import MARKER
from alexnet_jax.doctor import folders
from alexnet_jax.doctor.findings import FIX, OK, Finding, check
from alexnet_jax.doctor.folders import checkpoint_bytes, data_set, run_folder, run_room
from alexnet_jax.storage.lock import locked
from alexnet_jax.storage.workdir import Workdir
from tests.storage.test_lock import held

READ_ONLY = Path("/sys")  # for root too


@pytest.fixture
def config(packed_path: Path, narrow: Config, tmp_path: Path) -> Config:
    """A config of a narrow network, whose data set is there."""
    shutil.copytree(packed_path, tmp_path / "data" / "packed" / "toyshapes-72-raw")
    data = dataclasses.replace(narrow.data, name="toyshapes", dir=str(tmp_path / "data"))
    return dataclasses.replace(narrow, data=data)


def packed(config: Config) -> Path:
    return Path(config.data.dir) / "packed" / "toyshapes-72-raw"


def own(config: Config) -> Finding:
    return check("data", data_set, config)


def asking(config: Config, **changes: object) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))


def test_a_data_set(config: Config) -> None:
    words = r"toyshapes-72-raw: few: 40 train, 20 validation pictures, 10 classes, as the config asks"
    expect(own(config), OK, words)
    network = dataclasses.replace(config.network, classes=12)
    expect(own(dataclasses.replace(config, network=network)), FIX, "classes=12, but toyshapes has 10 classes")


def expect(found: Finding, verdict: str, words: str) -> None:
    assert found.verdict == verdict, found
    assert re.search(words, found.words), found


def test_data_that_is_missing(config: Config, tmp_path: Path) -> None:
    """A run draws toyshapes; for others the command that packs them is named."""
    lacking = asking(config, name="cifar10", size=32)
    expect(
        own(lacking),
        FIX,
        "no .*cifar10-32-raw; make it with: python -m .*prepare --dataset=cifar10 --size=32",
    )
    expect(own(asking(config, dir=str(tmp_path / "nowhere"))), OK, "not packed yet: a run draws it")
    assert not (tmp_path / "nowhere").exists()
    expect(own(asking(config, dir=str(READ_ONLY / "data"))), FIX, "cannot write to /sys: ")
    expect(own(asking(config, dir="~nobody-here/data")), FIX, "nobody-here is nobody's home here")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), "lacks 1 of its 5 files, such as"),
        (lambda path: (path.parent / MARKER).write_text('{"splits": '), "cannot be read; delete"),
        (lambda path: (path.parent / MARKER).unlink(), "has no packed.json"),
    ],
)
def test_data_that_is_damaged(damage: Callable[[Path], object], words: str, config: Config) -> None:
    damage(next(packed(config).glob("*train*")))
    expect(own(config), FIX, words)


def run_of(config: Config, path: Path, *steps: int) -> Workdir:
    """The folder of a run that has saved so many steps."""
    workdir = Workdir(str(path))
    for step in steps:
        for part in ("arrays", "progress", "digests"):
            (workdir.checkpoints / str(step) / part).mkdir(parents=True)
    workdir.path.mkdir(exist_ok=True)
    workdir.write_config(config)
    return workdir


def folder(config: Config | None, workdir: Workdir) -> Finding:
    return check("workdir", run_folder, config, workdir)


def test_a_new_workdir(config: Config, tmp_path: Path) -> None:
    expect(folder(config, Workdir(str(tmp_path / "a" / "b"))), OK, "a/b holds no run yet")
    assert not (tmp_path / "a").exists()
    (tmp_path / "a").mkdir()
    expect(folder(config, Workdir(str(tmp_path / "a"))), OK, "holds no run yet")
    assert list((tmp_path / "a").iterdir()) == []


def test_a_workdir_that_cannot_be_written(config: Config, tmp_path: Path) -> None:
    expect(folder(config, Workdir(str(READ_ONLY / "run"))), FIX, "cannot write to /sys: .*; choose another")
    (tmp_path / "file").touch()
    expect(folder(config, Workdir(str(tmp_path / "file" / "run"))), FIX, "cannot write to .*file: Not a dir")


def test_a_workdir_with_a_run(config: Config, tmp_path: Path) -> None:
    """Says how far the run is, and whether this config may resume it."""
    workdir = run_of(config, tmp_path / "run")
    expect(folder(config, workdir), OK, "a run on toyshapes, which has saved nothing yet")
    workdir = run_of(config, tmp_path / "run", 5, 10)
    for one in (config, None):
        expect(folder(one, workdir), OK, "a run on toyshapes, saved at step 10; the same command goes on")
    expect(
        folder(dataclasses.replace(config, seed=7), workdir),
        FIX,
        "holds a run with seed=0, this config says 7",
    )
    figures = {"split": "final", "step": 10, "loss": 1.0, "top1_error": 0.25, "top5_error": 0.0}
    workdir.append(figures)
    expect(folder(config, workdir), OK, "finished, at a top-1 error of 25.0 %")


def test_a_workdir_that_is_damaged(config: Config, tmp_path: Path) -> None:
    workdir = run_of(config, tmp_path / "run", 5)
    workdir.metrics_path.write_text("not JSON\n")
    expect(folder(config, workdir), FIX, "metrics.jsonl is corrupt")
    for text, words in (('{"seed": 0', "is corrupt"), ('{"sed": 0}', "does not fit this version")):
        workdir.config_path.write_text(text)
        expect(folder(config, workdir), FIX, words)
    workdir.config_path.unlink()
    expect(folder(None, workdir), FIX, "there is no config.json")


def test_a_workdir_in_use(config: Config, tmp_path: Path) -> None:
    """By a process that is alive; what a dead one has left is no hindrance, and stays for the run to take."""
    workdir = run_of(config, tmp_path / "run", 5)
    with held(workdir.path) as other:
        expect(folder(config, workdir), FIX, f"is in use by process {other.pid} on .* since 20.*; wait until")
        other.kill()
        other.wait()
        expect(folder(config, workdir), OK, "saved at step 5")
    with locked(workdir.path):
        expect(folder(None, workdir), FIX, f"in use by process {os.getpid()} ")
    new = Workdir(str(tmp_path / "new"))
    new.path.mkdir()
    with locked(new.path):
        expect(folder(None, new), FIX, "in use by process")


def test_an_ancestor(config: Config, tmp_path: Path) -> None:
    run_of(config, tmp_path / "old")
    heir = dataclasses.replace(config, init_from=str(tmp_path / "old"))
    expect(folder(heir, Workdir(str(tmp_path / "new"))), FIX, "init_from=.*old has no checkpoint yet")


def test_what_a_run_needs(paper: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two numbers for each of 60,965,224 weights, and the step; one more than those that stay."""
    assert checkpoint_bytes(paper) == 60_965_224 * 8 + 4
    workdir = Workdir(str(tmp_path / "run"))
    found = check("disk", run_room, paper, workdir)
    assert "2.4 GB needed for up to 5 checkpoints of 488 MB" in found.words
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda _: usage._replace(free=2_000_000_000))
    expect(check("disk", run_room, paper, workdir), FIX, "2.0 GB free at .*, 2.4 GB needed .*: make room")
    (workdir.checkpoints / "5").mkdir(parents=True)
    with (workdir.checkpoints / "5" / "sparse").open("w") as file:
        file.truncate(1_000_000_000)
    expect(check("disk", run_room, paper, workdir), OK, "1.4 GB needed for ")


def test_what_data_need(paper: Config, tmp_path: Path) -> None:
    """ImageNet's 1,331,167 pictures of 256 x 256, until they are there."""
    config = asking(paper, dir=str(tmp_path))
    assert "261.7 GB needed for the packed pictures" in folders.data_room(config)[1]
    path = tmp_path / "packed" / "imagenet2012-256-raw"
    path.mkdir(parents=True)
    (path / MARKER).touch()
    assert "needed" not in folders.data_room(config)[1]
    bucket = asking(paper, dir="gs://somewhere/data")
    assert folders.data_room(bucket) == (
        OK,
        f"{epath.Path('gs://somewhere/data')} is a bucket, which has no end",
    )
