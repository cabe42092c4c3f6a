"""Packing that is killed, interrupted or refused."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tensorflow_datasets as tfds
from etils import epath

from alexnet_jax.data import packing, shards, sources
from alexnet_jax.data.packed import MARKER
from alexnet_jax.data.packing import Packing, Work, pack, plan_packing
from alexnet_jax.data.shards import PackedForm
from alexnet_jax.data.sources import FolderSource
from alexnet_jax.errors import CONFIG, PREEMPTED, REFUSED, RefusedError
from tests.commands import stopped_packing
from tests.commands.running import NARROW, ROOT, STARTED, here
from tests.data.images import encoded, photo, write_archives

SIZE = 16
FLAGS = ("--dataset=mine", f"--size={SIZE}", "--processes=1")
SET = f"mine-{SIZE}-raw"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pictures to train and two to validate."""
    path = tmp_path / "folder"
    for split, count in (("train", 6), ("val", 2)):
        (path / split / "class").mkdir(parents=True)
        for i in range(count):
            (path / split / "class" / f"{i}.png").write_bytes(encoded(photo(i, 20, 24), "PNG"))
    return path


@pytest.fixture
def one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every picture is a file."""
    monkeypatch.setattr(packing, "SHARD_BYTES", stopped_packing.PICTURE)


def plan(folder: Path, target: Path) -> Packing:
    return plan_packing(FolderSource("mine", epath.Path(folder)), PackedForm(SIZE, "raw"), epath.Path(target))


def notes(home: Path) -> int:
    """The number of whole files."""
    return len(list((home / "packed" / SET / "making").glob("*.npz")))


def signalled(function: Callable, number: signal.Signals, at: int) -> Callable:
    """A function in whose call number `at` this process gets a signal."""
    calls = iter(range(1, at + 1))

    def call(*given: Any, **more: Any) -> Any:
        if next(calls, 0) == at:
            os.kill(os.getpid(), number)
        return function(*given, **more)

    return call


def check_whole(home: Path, folder: Path, digest: str) -> None:
    """A set is what is packed without a break."""
    assert pack(plan(folder, home / "undisturbed"), Work())
    assert json.loads((home / "undisturbed" / MARKER).read_text())["digest"] == digest
    found, wanted = (
        sorted(file.name for file in path.iterdir()) for path in (home / "packed" / SET, home / "undisturbed")
    )
    assert found == wanted


@pytest.mark.usefixtures("one_each")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_is_told_to_stop(
    number: signal.Signals, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By TERM or Ctrl-C in the third file: two are whole, and the same command goes on."""
    flags = (*FLAGS, f"--folder={folder}")
    with monkeypatch.context() as patch:
        patch.setattr(shards, "_row", signalled(shards._row, number, 3))
        _, err = here("prepare", *flags, data_dir=tmp_path, code=PREEMPTED)
    assert err == "stopped, 2 of 8 files are packed; the same command goes on\n"
    assert notes(tmp_path) == 2
    out, _ = here("prepare", *flags, data_dir=tmp_path)
    assert "files    6 of 8 are to be written" in out
    check_whole(tmp_path, folder, out.partition("digest ")[2].partition(",")[0])


def stopped(home: Path, folder: Path, deed: str, at: int) -> tuple[int, str]:
    """The end of packing by two workers to which something happens."""
    words = [sys.executable, "-c", "from tests.commands.stopped_packing import main; main()"]
    process = subprocess.Popen(
        [*words, *FLAGS[:2], "--processes=2", f"--folder={folder}"],
        cwd=ROOT,
        env=os.environ | {"ALEXNET_DATA_DIR": str(home), "DEED": deed, "AT": str(at)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    STARTED.append(process)
    _, err = process.communicate(timeout=300)  # which all of them must have closed
    return process.returncode, err


@pytest.mark.slow
@pytest.mark.usefixtures("one_each")
def test_processes_that_are_stopped(folder: Path, tmp_path: Path) -> None:
    """kill -9, then Ctrl-C: each time what is whole stays, and every process ends."""
    assert stopped(tmp_path, folder, "kill", 2)[0] == -signal.SIGKILL
    assert notes(tmp_path) == 2
    ended = stopped(tmp_path, folder, "Ctrl-C", 4)
    assert ended == (PREEMPTED, "stopped, 4 of 8 files are packed; the same command goes on\n")
    assert notes(tmp_path) == 4
    out, _ = here("prepare", *FLAGS, f"--folder={folder}", data_dir=tmp_path)
    check_whole(tmp_path, folder, out.partition("digest ")[2].partition(",")[0])


@pytest.mark.slow
@pytest.mark.usefixtures("one_each")
def test_a_process_that_is_killed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEED", "kill a worker")
    monkeypatch.setenv("AT", "2")
    monkeypatch.setattr(packing, "write_shard", stopped_packing.write_shard)
    words = "a process was killed, perhaps for want of memory; the same command goes on"
    with pytest.raises(RefusedError, match=words):
        pack(plan(folder, tmp_path / "packed" / SET), Work(processes=2))
    assert notes(tmp_path) == 2


def test_the_first_of_two_hosts_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other waits, and both pack; interrupted before, TFDS leaves nothing behind, and starts anew."""
    write_archives(tmp_path / "manual", 2, 3)
    flags = ("--dataset=imagenet2012", "--size=48", "--processes=1", "--archives=any")
    flags += (f"--manual_dir={tmp_path / 'manual'}", f"--tfds_dir={tmp_path / 'tfds'}")
    with monkeypatch.context() as patch:
        write = tfds.core.writer.Writer.write
        patch.setattr(tfds.core.writer.Writer, "write", signalled(write, signal.SIGTERM, 3))
        _, err = here("prepare", *flags, "--shard=0/2", data_dir=tmp_path, code=PREEMPTED)
    assert err == "stopped while the source was being made; the same command makes it anew, and goes on\n"
    assert not list((tmp_path / "tfds" / "imagenet2012").glob("incomplete.*"))

    waits = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        out, _ = here("prepare", *flags, "--shard=0/2", data_dir=tmp_path)
        assert "share 0/2 is packed; the host that is the last to finish makes it a set" in out

    monkeypatch.setattr(sources, "time", SimpleNamespace(sleep=wait))
    out, _ = here("prepare", *flags, "--shard=1/2", data_dir=tmp_path)
    assert out.startswith("tfds     waiting until the host with --shard=0/... has made imagenet2012\n")
    assert len(waits) == 1
    out, _ = here("prepare", *flags, "--verify", data_dir=tmp_path)
    assert "6 train, 3 validation pictures, 1000 classes; every picture read back" in out


@pytest.mark.slow
@pytest.mark.usefixtures("half_optimised")
@pytest.mark.parametrize(
    ("size", "config", "crop"),
    [(48, "cifar10", 42), (128, "imagenet", 112)],
)
def test_the_next_command_is_taken(size: int, config: str, crop: int, tmp_path: Path) -> None:
    """The command printed for pictures of other sizes trains on them; a second call says it is packed."""
    for split in ("train", "val"):
        for name in ("one", "other"):
            (tmp_path / "folder" / split / name).mkdir(parents=True)
            for i in range(4):
                (tmp_path / "folder" / split / name / f"{i}.jpg").write_bytes(encoded(photo(i, 50, 60)))
    flags = ("--dataset=mine", f"--folder={tmp_path / 'folder'}", f"--size={size}", "--processes=1")
    out, _ = here("prepare", *flags, data_dir=tmp_path)
    chosen = f"--config.data.name=mine --config.data.size={size} --config.network.image_size={crop}"
    start = f"python -m alexnet_jax.main --config=configs/{config}.py --workdir=runs/mine {chosen}"
    assert out.splitlines()[-1] == f"next: {start} --config.network.classes=2"
    arguments = [word for word in out.splitlines()[-1].split()[4:] if "workdir" not in word]
    short = (*NARROW, "--config.train.steps=1", "--config.evaluation.batch_size=8")
    here("main", *arguments, *short, f"--workdir={tmp_path / 'run'}", data_dir=tmp_path)
    again, _ = here("prepare", *flags, data_dir=tmp_path)
    assert again.startswith("already packed; delete its folder to pack anew: mine: 8 train, 8 validation")


REFUSALS = [
    (
        ["--dataset=imagnet2012"],
        "TFDS knows no data set 'imagnet2012'; the nearest name is imagenet2012",
        CONFIG,
    ),
    (["--dataset=imagenet2012", "--manual_dir={home}"], "lacks ILSVRC2012_img_train.tar and ILSV", REFUSED),
    (["--dataset=pets", "--verify"], "data set pets (raw, 256 x 256) is not packed", REFUSED),
    (["--dataset=toyshapes", "--shard=2/2"], "--shard=2/2 must be a number below", CONFIG),
    (["--dataset=toyshapes", "--size=0"], "flag --size=0", CONFIG),
    (["--dataset=toyshapes", "--encoding=png"], "flag --encoding=png", CONFIG),
    (["--dataset=my photos"], "error: TFDS has no data set 'my photos'", CONFIG),
    (["--dataset=mine", "--folder={home}/no"], "/no: there is no such folder", REFUSED),
    ([], "--dataset is missing; try --dataset=imagenet2012", CONFIG),
]


@pytest.mark.parametrize(("arguments", "message", "code"), REFUSALS, ids=lambda value: str(value)[:40])
def test_refusals(arguments: list[str], message: str, code: int, tmp_path: Path) -> None:
    filled = [argument.format(home=tmp_path) for argument in arguments]
    _, err = here("prepare", *filled, f"--tfds_dir={tmp_path / 'other'}", data_dir=tmp_path, code=code)
    assert message in err and len(err.splitlines()) == 1, err
