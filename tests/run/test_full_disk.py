"""A disk that is full: real, and small."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from alexnet_jax.errors import COMPLETE, REFUSED
from tests.run.commands import NARROW, command, lines, train

FLAGS = ("--config.train.steps=40", "--config.train.log_every=5", "--config.checkpoint.every_steps=11")
FLAGS += ("--config.evaluation.every_epochs=9",)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB; a checkpoint of the narrow net takes a tenth of one."""
    path = tmp_path / "small"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a file system here")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(path: Path, but: int) -> None:
    """Leaves so many bytes."""
    left = os.statvfs(path)
    with (path / "filler").open("ab") as filler:
        filler.write(bytes(left.f_bavail * left.f_frsize - but))


def test_no_room_for_a_line(small: Path, tmp_path: Path, data_dir: Path) -> None:
    """A disk that is full for a while, in the middle of a run: nothing is missing in the end."""
    flags = (*FLAGS[1:], "--config.train.steps=400", "--config.evaluation.every_epochs=0.2")
    train(tmp_path / "whole", *flags, data_dir=data_dir)
    everything = ("--config=configs/quickstart.py", f"--workdir={small / 'run'}", *NARROW, *flags)
    process = command("main", *everything, data_dir=data_dir)
    said = []
    for line in process.stdout:
        said.append(line)
        if " 20/400" in line:
            fill(small, but=0)
        if " 200/400" in line and (small / "filler").exists():
            assert lines(small / "run")[-1]["step"] < 200  # some fit into what the file had already
            (small / "filler").unlink()
    _, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (COMPLETE, "")
    out = "".join(said)
    assert "not saved: step 100 needs 1 MiB" in out
    assert out.count("not written for TensorBoard: ") == 1, out
    assert lines(small / "run") == lines(tmp_path / "whole")


def test_no_room_for_a_checkpoint(small: Path, data_dir: Path) -> None:
    """It says so each time and goes on; what it had learnt is not complete; once there is room it is."""
    train(small / "run", *FLAGS, "--config.train.steps=10", data_dir=data_dir)
    fill(small, but=600 * 1024)
    out, err = train(small / "run", *FLAGS, data_dir=data_dir, code=REFUSED)
    words = r"step (\d+) needs \d MiB below .*/checkpoints, where 0 MiB are free"
    assert re.findall(f"^not saved: {words}$", out, re.MULTILINE) == ["20", "30", "40"]
    assert re.fullmatch(f"error: {words}\n", err)
    assert [path.name for path in (small / "run" / "checkpoints").iterdir()] == ["10"]
    flags = (*FLAGS, "--config.checkpoint.when_full=end")
    out, err = train(small / "run", *flags, data_dir=data_dir, code=REFUSED)
    assert " 20/40" in out and " 25/40" not in out and "not saved" not in out
    assert re.fullmatch(f"error: {words}\n", err)
    fill(small, but=0)
    _, err = train(small / "run", *FLAGS, data_dir=data_dir, code=REFUSED)
    assert re.fullmatch("error: .*No space left on device.*\n", err)
    (small / "filler").unlink()
    out, _ = train(small / "run", *FLAGS, data_dir=data_dir)
    assert "resuming at step 10 of 40" in out
    assert lines(small / "run")[-1]["split"] == "final"
