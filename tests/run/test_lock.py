"""Two runs in one folder: the second is refused; after a dead one it goes on."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alexnet_jax.errors import PREEMPTED, REFUSED, RefusedError
from alexnet_jax.run import lock
from alexnet_jax.run.lock import locked
from alexnet_jax.run.report import Report
from tests.run.commands import NARROW, ROOT, here

HOLD = """
import sys, time
from pathlib import Path
from alexnet_jax.run import lock
lock.BEAT = float(sys.argv[2])
with lock.locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


class Clock:
    """In place of the module `time`: a wait takes none, and may be the moment at which something happens."""

    def __init__(self, happens: Callable[[], object] = lambda: None):
        self.waited, self._happens = 0.0, happens

    def monotonic(self) -> float:
        return self.waited

    def sleep(self, seconds: float) -> None:
        self.waited += seconds
        self._happens()

    def strftime(self, form: str) -> str:
        return form


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(lock, "time", clock)
    return clock


@contextlib.contextmanager
def held(path: Path, beat: float = lock.BEAT) -> Iterator[subprocess.Popen]:
    words = [sys.executable, "-c", HOLD, str(path), str(beat)]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def of_another_machine(path: Path) -> None:
    holder = json.loads((path / "lock").read_text())
    (path / "new").write_text(json.dumps(holder | {"machine": "far away", "host": "far"}))
    (path / "new").replace(path / "lock")


def test_free_again(tmp_path: Path) -> None:
    with locked(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_in_use(tmp_path: Path) -> None:
    with held(tmp_path) as other:
        words = f"{tmp_path} is in use by process {other.pid} on .* since 20.*; wait until it has ended, or"
        with pytest.raises(RefusedError, match=words), locked(tmp_path):
            pass
        assert json.loads((tmp_path / "lock").read_text())["pid"] == other.pid


def test_of_a_dead_process(tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """At once; also where another has got its number since."""
    with held(tmp_path) as other:
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # its exit code stays, as in a container
        with locked(tmp_path):
            assert clock.waited == 0
    assert f"was in use by process {other.pid} on " in capsys.readouterr().err
    with held(tmp_path) as other:
        holder = json.loads((tmp_path / "lock").read_text())
        (tmp_path / "lock").write_text(json.dumps(holder | {"started": "1"}))
        with locked(tmp_path):
            pass


def test_of_another_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its process cannot be looked for: alive as long as it touches the file."""
    with held(tmp_path, 0.01) as other:
        other.send_signal(signal.SIGSTOP)  # says no more than a dead one does
        os.waitid(os.P_PID, other.pid, os.WSTOPPED)
        of_another_machine(tmp_path)
        touching = Clock(lambda: touching.waited > 10 and os.utime(tmp_path / "lock"))
        monkeypatch.setattr(lock, "time", touching)
        words = f"in use by process {other.pid} on far since"
        with pytest.raises(RefusedError, match=words), locked(tmp_path):
            pass
        assert touching.waited == pytest.approx(10.2)
        assert "waiting for a sign of life" in capsys.readouterr().err
        silent = Clock()
        monkeypatch.setattr(lock, "time", silent)
        with locked(tmp_path):
            assert silent.waited == pytest.approx(lock.DEAD, abs=0.3)
            other.send_signal(signal.SIGCONT)  # it was not dead, but is too late
            assert other.wait(timeout=300) == REFUSED
            assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
        assert f"was in use by process {other.pid} on far, which is gone" in capsys.readouterr().err


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused, and nothing is left that would keep others out."""

    def write(path: Path, _: str) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patches:
        patches.setattr(Path, "write_text", write)
        with pytest.raises(RefusedError, match=r"cannot write .*/lock: No space left"), locked(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that knows none it works too."""

    def link(*_: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    test_free_again(tmp_path)
    test_in_use(tmp_path)


@pytest.mark.parametrize(
    "text", ['{"host": ', "[]", "[" * 5000, '{"machine": "%s"}', '{"machine": "%s", "pid": []}']
)
def test_what_cannot_be_read(text: str, tmp_path: Path, clock: Clock) -> None:
    """Cut off while it was written: gone if nobody touches it."""
    (tmp_path / "lock").write_text(text.replace("%s", lock._machine()))
    with locked(tmp_path):
        assert clock.waited == pytest.approx(lock.DEAD, abs=0.3)
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_given_back_meanwhile(tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """Between the two looks of another: it has it at once, and says nothing."""
    take = lock._take

    def too_late(path: Path, mine: dict) -> bool:
        path.write_text(json.dumps(mine))
        taken = take(path, mine)
        path.unlink()
        monkeypatch.undo()
        return taken

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(lock, "_take", too_late)
        with locked(tmp_path):
            assert clock.waited == 0
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.usefixtures("half_optimised")
def test_two_runs(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the command: the second ends with 4, the first goes on, and leaves no lock."""
    flags = ("--config=configs/quickstart.py", f"--workdir={tmp_path}", *NARROW, "--config.train.log_every=1")
    figures = Report.figures

    def meanwhile(self: Report, *given: Any) -> None:
        """Once the first run has made a step the second begins; then the first is told to stop."""
        monkeypatch.undo()
        _, err = here("main", *flags, data_dir=data_dir, code=REFUSED)
        assert f"error: {tmp_path} is in use by process {os.getpid()} on " in err
        os.kill(os.getpid(), signal.SIGTERM)
        figures(self, *given)

    monkeypatch.setattr(Report, "figures", meanwhile)
    _, err = here("main", *flags, data_dir=data_dir, code=PREEMPTED)
    assert "stopped and saved at step 2; to go on: python -m alexnet_jax.main --config=configs/quick" in err
    assert not (tmp_path / "lock").exists()
