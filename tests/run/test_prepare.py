"""Packing that is killed, interrupted or refused."""

import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from etils import epath

from alexnet_jax.data.packed import MARKER
from alexnet_jax.data.packing import Work, make_plan, pack
from alexnet_jax.data.shards import Form
from alexnet_jax.data.sources import TfdsSource
from alexnet_jax.data.toyshapes import Toyshapes
from alexnet_jax.errors import CONFIG, PREEMPTED, REFUSED
from tests.data.images import archive, encoded, photo, write_archives
from tests.run.commands import NARROW, command, run

FLAGS = ("--dataset=toyshapes", "--size=128")
SET = "toyshapes-128-raw"


@pytest.fixture
def home(data_dir: Path, tmp_path: Path) -> Path:
    """A data folder where toyshapes are drawn, but not packed."""
    (tmp_path / "tfds").symlink_to(data_dir / "tfds")
    return tmp_path


@pytest.fixture(scope="module")
def digest(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the set that is packed without a break."""
    path = tmp_path_factory.mktemp("whole") / SET
    drawn = TfdsSource("toyshapes", Toyshapes(data_dir=str(data_dir / "tfds")))
    assert pack(make_plan(drawn, Form(128, "raw"), epath.Path(path)), Work())
    return json.loads((path / MARKER).read_text())["digest"]


def digest_in(out: str) -> str:
    return out.partition("digest ")[2].partition(",")[0]


def notes(home: Path) -> int:
    """How many files are whole."""
    return len(list((home / "packed" / SET / "making").glob("*.npz")))


def processes_of(home: Path) -> list[int]:
    """Every process that was started for a data folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
        except OSError:  # it is another's, or has ended
            continue
        if f"ALEXNET_DATA_DIR={home}\0".encode() in environment:
            found.append(int(process.name))
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def start(home: Path, processes: int) -> subprocess.Popen:
    """Packing that has begun."""
    packing = command("prepare", *FLAGS, f"--processes={processes}", data_dir=home)
    assert packing.stdout.readline().startswith("source")
    return packing


def test_whatever_happens(home: Path, digest: str) -> None:
    """kill -9 at five random moments, a process killed as for want of memory, TERM, Ctrl-C: each time what is
    whole stays, every process ends, and in the end the set is the undisturbed one's.
    """
    rng, whole = random.Random(0), [0]
    for processes in (1, 2, 1, 1, 1):
        packing = start(home, processes)
        time.sleep(rng.uniform(0, 2) + 6 * (processes - 1))
        packing.kill()
        packing.communicate()
        wait_until(lambda: not processes_of(home), 10)
        whole.append(notes(home))

    packing = start(home, 2)
    wait_until(lambda: notes(home) > whole[-1])
    workers = [p for p in processes_of(home) if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()]
    os.kill(workers[0], signal.SIGKILL)
    _, err = packing.communicate(timeout=30)
    assert packing.returncode == REFUSED
    assert "a process was killed, perhaps for want of memory; the same command goes on" in err
    whole.append(notes(home))

    for number, processes in ((signal.SIGTERM, 1), (signal.SIGINT, 2)):
        packing = start(home, processes)
        wait_until(lambda: notes(home) > whole[-1])
        packing.send_signal(number)
        _, err = packing.communicate(timeout=30)
        assert packing.returncode == PREEMPTED
        found = re.search(r"stopped, (\d+) of 21 files are packed; the same command goes on", err)
        assert found and int(found[1]) == notes(home), err
        wait_until(lambda: not processes_of(home), 10)
        whole.append(notes(home))

    assert whole == sorted(whole) and 0 < whole[-1] < 21, whole
    out, _ = run("prepare", *FLAGS, "--processes=1", data_dir=home)
    assert digest_in(out) == digest
    left = [path.name for path in (home / "packed" / SET).iterdir() if path.name[0] == "."]
    assert left == []


def test_two_hosts_at_once(home: Path, digest: str) -> None:
    """One makes it a set, whichever ends last."""
    flags = (*FLAGS, "--processes=1")
    hosts = [command("prepare", *flags, f"--shard={i}/2", data_dir=home) for i in range(2)]
    ended = [host.communicate(timeout=120) for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], ended
    assert any(digest_in(out) == digest for out, _ in ended)
    assert json.loads((home / "packed" / SET / MARKER).read_text())["digest"] == digest


def test_the_first_of_two_hosts_unpacks(tmp_path: Path) -> None:
    """The other waits, and both pack; interrupted before, TFDS leaves nothing behind, and starts anew."""
    write_archives(tmp_path / "manual", 20, 0)
    # TFDS is at so many for a second or two: the signal must not come after the end.
    picture = encoded(photo(0, 64, 64))
    small = [(f"ILSVRC2012_val_{i:08d}.JPEG", picture) for i in range(1, 8001)]
    (tmp_path / "manual" / "ILSVRC2012_img_val.tar").write_bytes(archive(small))
    flags = ("--dataset=imagenet2012", "--size=48", "--processes=1", "--archives=any")
    flags += (f"--manual_dir={tmp_path / 'manual'}", f"--tfds_dir={tmp_path / 'tfds'}")
    second = command("prepare", *flags, "--shard=1/2", data_dir=tmp_path)
    assert "waiting until the host with --shard=0/... has made imagenet2012" in second.stdout.readline()

    first = command("prepare", *flags, "--shard=0/2", data_dir=tmp_path)
    assert "making imagenet2012" in first.stdout.readline()
    wait_until(lambda: any((tmp_path / "tfds" / "imagenet2012").glob("incomplete.*")))
    first.send_signal(signal.SIGTERM)
    _, err = first.communicate(timeout=60)
    assert first.returncode == PREEMPTED, err
    assert err == "stopped while the source was being made; the same command makes it anew, and goes on\n"
    assert not list((tmp_path / "tfds" / "imagenet2012").glob("incomplete.*"))

    run("prepare", *flags, "--shard=0/2", data_dir=tmp_path)
    out, err = second.communicate(timeout=200)
    assert second.returncode == 0, err
    out, _ = run("prepare", *flags, "--verify", data_dir=tmp_path)
    assert "60 train, 8000 validation pictures, 1000 classes; every picture read back" in out


def test_the_next_command_is_taken(tmp_path: Path) -> None:
    """What is printed for pictures of other sizes trains on them; a second call says that it is packed."""
    for split in ("train", "val"):
        for name in ("one", "other"):
            (tmp_path / "folder" / split / name).mkdir(parents=True)
            for i in range(4):
                (tmp_path / "folder" / split / name / f"{i}.jpg").write_bytes(encoded(photo(i, 50, 60)))
    for size, config, crop in ((48, "cifar10", 42), (128, "imagenet", 112)):
        flags = ("--dataset=mine", f"--folder={tmp_path / 'folder'}", f"--size={size}", "--processes=1")
        out, _ = run("prepare", *flags, data_dir=tmp_path)
        chosen = f"--config.data.name=mine --config.data.size={size} --config.network.image_size={crop}"
        start = f"python -m alexnet_jax.main --config=configs/{config}.py --workdir=runs/mine {chosen}"
        assert out.splitlines()[-1] == f"next: {start} --config.network.classes=2"
        arguments = [word for word in out.splitlines()[-1].split()[4:] if "workdir" not in word]
        short = (*NARROW, "--config.train.steps=1", "--config.evaluation.batch_size=8")
        run("main", *arguments, *short, f"--workdir={tmp_path / config}", data_dir=tmp_path)
        again, _ = run("prepare", *flags, data_dir=tmp_path)
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
def test_refusals(arguments: list[str], message: str, code: int, home: Path) -> None:
    filled = [argument.format(home=home) for argument in arguments]
    _, err = run("prepare", *filled, f"--tfds_dir={home / 'other'}", data_dir=home, code=code)
    assert message in err and len(err.splitlines()) == 1, err
