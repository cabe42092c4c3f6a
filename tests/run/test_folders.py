"""Folders that are missing, in use, damaged or too small, each in a line; and nothing is changed in them."""

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from etils import epath

from alexnet_jax.config import Config
from alexnet_jax.data.packed import MARKER
from alexnet_jax.run import folders
from alexnet_jax.run.findings import MEND, OK, WARN, Finding, look
from alexnet_jax.run.folders import checkpoint_bytes, checkpoint_count, data_sets, run_folder, run_room
from alexnet_jax.run.lock import locked
from alexnet_jax.run.workdir import Workdir
from tests.run.test_lock import held

READ_ONLY = Path("/sys")  # for root too


@pytest.fixture
def config(packed_path: Path, narrow: Config, tmp_path: Path) -> Config:
    """Of a narrow network, whose data set is there."""
    shutil.copytree(packed_path, tmp_path / "data" / "packed" / "toyshapes-72-raw")
    data = dataclasses.replace(narrow.data, name="toyshapes", dir=str(tmp_path / "data"))
    return dataclasses.replace(narrow, data=data)


def packed(config: Config) -> Path:
    return Path(config.data.dir) / "packed" / "toyshapes-72-raw"


def own(config: Config) -> Finding:
    return next(iter(data_sets(config)))


def asking(config: Config, **changes: object) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))


def test_a_data_set(config: Config) -> None:
    words = r"toyshapes-72-raw: few: 40 train, 20 validation pictures, 10 classes, 1 MB, as the config asks"
    check(own(config), OK, words)
    network = dataclasses.replace(config.network, classes=12)
    check(own(dataclasses.replace(config, network=network)), MEND, "classes=12, but toyshapes has 10 classes")


def check(found: Finding, verdict: str, words: str) -> None:
    assert found.verdict == verdict, found
    assert re.search(words, found.words), found


def test_data_that_is_missing(config: Config, tmp_path: Path) -> None:
    """What is drawn is made by a run; the rest by a command, which is named."""
    lacking = asking(config, name="cifar10", size=32)
    check(
        own(lacking),
        MEND,
        "no .*cifar10-32-raw; make it with: python -m .*prepare --dataset=cifar10 --size=32",
    )
    check(own(asking(config, dir=str(tmp_path / "nowhere"))), OK, "not packed yet: a run draws it")
    assert not (tmp_path / "nowhere").exists()
    check(own(asking(config, dir=str(READ_ONLY / "data"))), MEND, "cannot write to /sys: ")
    (tmp_path / "file").touch()
    check(own(asking(config, dir=str(tmp_path / "file"))), MEND, "is not a folder that can be read")
    check(own(asking(config, dir="~nobody-here/data")), MEND, "nobody-here is nobody's home here")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: os.truncate(path, 5000), "has 5000 bytes, 40 pictures take at least 622080; delete it"),
        (lambda path: path.unlink(), "lacks 1 of its 5 files, such as"),
        (lambda path: (path.parent / MARKER).write_text('{"splits": '), "cannot be read; delete"),
        (lambda path: (path.parent / MARKER).write_bytes(b"\xff\xfe"), "cannot be read; delete"),
        (lambda path: (path.parent / MARKER).unlink(), "has no packed.json"),
    ],
)
def test_data_that_is_damaged(damage: object, words: str, config: Config) -> None:
    """Of the config's own set it must be mended; of others it is a warning."""
    damage(next(packed(config).glob("*train*")))
    check(own(config), MEND, words)
    _, other = data_sets(asking(config, size=64))
    check(other, WARN, words)


def test_other_data(config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All sets are listed, and what is none."""
    shutil.copytree(packed(config), packed(config).with_name("few-72-raw"))
    (packed(config).parent / "stray").mkdir()
    (packed(config).parent / ".few.lock").touch()
    monkeypatch.setenv("ALEXNET_DATA_DIR", config.data.dir)
    first, stray, last = data_sets(None)
    check(first, OK, "^few-72-raw: few: 40 train")
    check(stray, WARN, "stray is not named as packed sets are")
    check(last, OK, "^toyshapes-72-raw: few")
    monkeypatch.setenv("ALEXNET_DATA_DIR", str(tmp_path / "nowhere"))
    check(*data_sets(None), OK, "no data set is packed below .*nowhere/packed")
    monkeypatch.setenv("ALEXNET_DATA_DIR", "/dev/null")
    check(*data_sets(None), MEND, "/dev/null is not a folder")


def run_of(config: Config, path: Path, *steps: int) -> Workdir:
    """The folder of a run that has saved so many steps."""
    workdir = Workdir(str(path))
    for step in steps:
        for part in ("arrays", "progress", "digests"):
            (workdir.checkpoints / str(step) / part).mkdir(parents=True)
    workdir.path.mkdir(exist_ok=True)
    workdir.adopt(config)
    return workdir


def folder(config: Config | None, workdir: Workdir) -> Finding:
    return look("workdir", run_folder, config, workdir)


def test_a_new_workdir(config: Config, tmp_path: Path) -> None:
    check(folder(config, Workdir(str(tmp_path / "a" / "b"))), OK, "a/b is made by the run")
    assert not (tmp_path / "a").exists()
    (tmp_path / "a").mkdir()
    check(folder(config, Workdir(str(tmp_path / "a"))), OK, "holds no run yet")
    assert list((tmp_path / "a").iterdir()) == []


def test_a_workdir_that_cannot_be_written(config: Config, tmp_path: Path) -> None:
    check(folder(config, Workdir(str(READ_ONLY / "run"))), MEND, "cannot write to /sys: .*; choose another")
    (tmp_path / "file").touch()
    check(folder(config, Workdir(str(tmp_path / "file" / "run"))), MEND, "cannot write to .*file: Not a dir")


def test_a_workdir_with_a_run(config: Config, tmp_path: Path) -> None:
    """How far it is, and whether this config goes on with it."""
    workdir = run_of(config, tmp_path / "run")
    check(folder(config, workdir), OK, "a run on toyshapes that has saved nothing yet")
    workdir = run_of(config, tmp_path / "run", 5, 10)
    for one in (config, None):
        check(folder(one, workdir), OK, r"saved at step 10 \(2 checkpoints\); the same command goes on")
    check(
        folder(dataclasses.replace(config, seed=7), workdir),
        MEND,
        "holds a run with seed=0, this config says 7",
    )
    (workdir.checkpoints / "10" / "arrays").rmdir()
    check(folder(config, workdir), WARN, "step 10 lacks its arrays: a run goes on from the one before")
    figures = {"split": "final", "step": 10, "loss": 1.0, "top1_error": 0.25, "top5_error": 0.0}
    (workdir.checkpoints / "10" / "arrays").mkdir()
    workdir.append(figures)
    check(folder(config, workdir), OK, "is finished, at a top-1 error of 25.0 %")


def test_a_workdir_that_is_damaged(config: Config, tmp_path: Path) -> None:
    workdir = run_of(config, tmp_path / "run", 5)
    workdir.metrics_path.write_text("not JSON\n")
    check(folder(config, workdir), MEND, "metrics.jsonl is corrupt")
    for text, words in (('{"seed": 0', "is corrupt"), ('{"sed": 0}', "does not fit this version")):
        workdir.config_path.write_text(text)
        check(folder(config, workdir), MEND, words)
    workdir.config_path.unlink()
    check(folder(None, workdir), MEND, "there is no config.json")


def test_a_workdir_in_use(config: Config, tmp_path: Path) -> None:
    """By a process that is alive; what a dead one has left is no hindrance, and stays for the run to take."""
    workdir = run_of(config, tmp_path / "run", 5)
    with held(workdir.path) as other:
        check(folder(config, workdir), MEND, f"is in use by process {other.pid} on .* since 20.*; wait until")
        other.kill()
        other.wait()
        check(folder(config, workdir), OK, "saved at step 5")
        assert json.loads((workdir.path / "lock").read_text())["pid"] == other.pid
    with locked(workdir.path):
        check(folder(None, workdir), MEND, f"in use by process {os.getpid()} ")
    new = Workdir(str(tmp_path / "new"))
    new.path.mkdir()
    with locked(new.path):
        check(folder(None, new), MEND, "in use by process")


def test_an_ancestor(config: Config, tmp_path: Path) -> None:
    run_of(config, tmp_path / "old")
    heir = dataclasses.replace(config, init_from=str(tmp_path / "old"))
    check(folder(heir, Workdir(str(tmp_path / "new"))), MEND, "init_from=.*old has no checkpoint yet")


def test_what_a_run_needs(paper: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two numbers for each of 60,965,224 weights, and the step; those kept, and one that is written."""
    assert checkpoint_bytes(paper) == 60_965_224 * 8 + 4
    kept = dataclasses.replace(paper.checkpoint, keep=2, keep_best=True, keep_epochs=20.0, every_steps=500)
    config = dataclasses.replace(paper, checkpoint=kept)
    assert checkpoint_count(config) == 2 + 1 + 90 // 20
    short = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=900))
    assert checkpoint_count(short) == 2 + 1 + 2
    workdir = Workdir(str(tmp_path / "run"))
    found = look("disk", run_room, config, workdir)
    assert "3.9 GB needed for up to 8 checkpoints of 488 MB" in found.words
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda _: usage._replace(free=3_000_000_000))
    check(look("disk", run_room, config, workdir), MEND, "3.0 GB free at .*, 3.9 GB needed .*: make room")
    (workdir.checkpoints / "5").mkdir(parents=True)
    with (workdir.checkpoints / "5" / "sparse").open("w") as file:
        file.truncate(2_000_000_000)
    check(look("disk", run_room, config, workdir), OK, "1.9 GB needed for .*, of which 2.0 GB are there")


def test_what_data_need(paper: Config, tmp_path: Path) -> None:
    """ImageNet's 1,331,167 pictures of 256 x 256, but for what is packed already."""
    config = asking(paper, dir=str(tmp_path))
    assert folders.data_need(config) == 1_331_167 * 3 * 256**2
    path = tmp_path / "packed" / "imagenet2012-256-raw"
    path.mkdir(parents=True)
    (path / "part").write_bytes(bytes(1000))
    assert folders.data_need(config) == 1_331_167 * 3 * 256**2 - 1000
    (path / MARKER).touch()
    assert folders.data_need(config) == 0
    bucket = asking(paper, dir="gs://somewhere/data")
    assert folders.data_room(bucket) == (
        OK,
        f"{epath.Path('gs://somewhere/data')} is a bucket, which has no end",
    )
