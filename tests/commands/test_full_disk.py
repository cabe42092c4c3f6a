"""A disk that is full: real, and small."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alexnet_jax.config.fields import Config
from alexnet_jax.errors import RefusedError
from alexnet_jax.training import loop
from configs import quickstart
from tests.commands.programs import share_programs, train_here
from tests.commands.running import lines, narrow

pytestmark = pytest.mark.slow  # as root alone may mount


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a file system here")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    share_programs(monkeypatch)


def fill(path: Path, but: int) -> None:
    """Leaves so many bytes."""
    left = os.statvfs(path)
    with (path / "filler").open("ab") as filler:
        filler.write(bytes(left.f_bavail * left.f_frsize - but))


def config(data_dir: Path, steps: int, when_full: str = "go_on", evaluated: float = 9) -> Config:
    sections = {"train": {"log_every": 5}, "evaluation": {"every_epochs": evaluated}}
    sections["checkpoint"] = {"every_steps": 11, "when_full": when_full}
    return narrow(quickstart.get_config(), data_dir, steps, **sections)


def before_steps(monkeypatch: pytest.MonkeyPatch, todo: dict[int, Callable[[], None]]) -> None:
    start_step = loop.Training.start_step

    def look(self: loop.Training, done: int, *given: Any) -> None:
        if done in todo:
            todo[done]()
        start_step(self, done, *given)

    monkeypatch.setattr(loop.Training, "start_step", look)


def test_no_room_for_a_line(
    small: Path,
    tmp_path: Path,
    data_dir: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A disk that is full for a while, in the middle of a run: nothing is missing in the end."""
    wanted, run = config(data_dir, 200, evaluated=0.2), small / "run"
    train_here(wanted, tmp_path / "whole")
    written = []

    def free() -> None:
        written.append(lines(run)[-1]["step"])
        (small / "filler").unlink()

    before_steps(monkeypatch, {22: lambda: fill(small, but=0), 175: free})
    capsys.readouterr()
    train_here(wanted, run)
    out, err = capsys.readouterr()
    assert err == ""
    assert written[0] < 170  # some fit into what the file had already
    assert "not saved: step 100 could not be saved: " in out
    assert out.count("not written for TensorBoard: ") == 1, out
    assert lines(run) == lines(tmp_path / "whole")


def test_no_room_for_a_checkpoint(small: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says so each time and goes on; what it had learnt is not complete; once there is room it is."""
    run = small / "run"

    def refused(wanted: Config, words: str) -> tuple[str, str]:
        capsys.readouterr()
        with pytest.raises(RefusedError) as error:
            train_here(wanted, run)
        found = re.fullmatch(words, str(error.value))
        assert found, error.value
        return capsys.readouterr().out, found

    train_here(config(data_dir, 10), run)
    fill(small, but=140 * 1024)  # a checkpoint takes 172 KiB, what a start writes 64
    words = r"step (\d+) could not be saved: .*No space left on device.*"
    out, _ = refused(config(data_dir, 40), words)
    assert re.findall(f"^not saved: {words}$", out, re.MULTILINE) == ["20", "30", "40"]
    assert [path.name for path in (run / "checkpoints").iterdir() if path.name.isdecimal()] == ["10"]
    for leftover in (run / "checkpoints").glob("*-tmp"):  # it may have taken all the room that a start needs
        shutil.rmtree(leftover, ignore_errors=True)
    out, found = refused(config(data_dir, 40, "end"), words)
    assert found[1] == "20" and "not saved" not in out
    (small / "filler").unlink()
    capsys.readouterr()
    train_here(config(data_dir, 40), run)
    assert "resuming at step 10 of 40" in capsys.readouterr().out
    assert lines(run)[-1]["split"] == "final"
