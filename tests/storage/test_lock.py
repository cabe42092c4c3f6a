"""Two runs in one folder: the second is refused; after a dead one it goes on."""

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alexnet_jax.errors import PREEMPTED, REFUSED, RefusedError
from alexnet_jax.reporting.report import Report
from alexnet_jax.storage.lock import HOLDER, check_free, locked
from tests.commands.running import NARROW, ROOT, here

HOLD = """
import sys, time
from pathlib import Path
from alexnet_jax.storage.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def held(path: Path) -> Iterator[subprocess.Popen]:
    """By another process."""
    words = [sys.executable, "-c", HOLD, str(path)]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_free_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_free(tmp_path)
    for _ in range(2):
        with locked(tmp_path):
            assert (tmp_path / HOLDER).exists()
        assert not (tmp_path / HOLDER).exists()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("text", [None, '{"host": ', "[]", "[" * 5000, "{}"])
def test_in_use(text: str | None, tmp_path: Path) -> None:
    """By whom is not always known; what has died since keeps nobody out, at once."""
    with held(tmp_path) as other:
        who = f"process {other.pid} on .* since 20.*" if text is None else "another run"
        if text is not None:
            (tmp_path / HOLDER).write_text(text)
        for attempt in (lambda: locked(tmp_path).__enter__(), lambda: check_free(tmp_path)):
            with pytest.raises(
                RefusedError, match=f"{tmp_path} is in use by {who}; wait until it has ended, or"
            ):
                attempt()


def test_of_a_dead_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also while its exit code stays, as in a container."""
    with held(tmp_path) as other:
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        check_free(tmp_path)
        with locked(tmp_path):
            pass
    err = capsys.readouterr().err
    assert err.count("was in use by") == 1
    assert f"{tmp_path} was in use by process {other.pid} on " in err


def test_one_that_stands_still(tmp_path: Path) -> None:
    """It is alive: nobody takes its place, however long it is silent."""
    with held(tmp_path) as other:
        other.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, other.pid, os.WSTOPPED)
        with pytest.raises(RefusedError, match="is in use by"), locked(tmp_path):
            pass
        other.send_signal(signal.SIGCONT)


def test_a_folder_that_cannot_be_written() -> None:
    with pytest.raises(RefusedError, match="cannot write /sys/lock: "), locked(Path("/sys")):  # for root too
        pass


def test_a_disk_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Is said, and used for all that."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path):
        pass
    assert capsys.readouterr().err == f"{tmp_path} has no locks: two runs in it would mix what they write\n"


@pytest.mark.slow
@pytest.mark.usefixtures("half_optimised")
def test_two_runs(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the command: the second ends with 4, the first goes on, and then is nobody's."""
    flags = ("--config=configs/quickstart.py", f"--workdir={tmp_path}", *NARROW, "--config.train.log_every=1")
    metrics = Report.metrics

    def meanwhile(self: Report, *given: Any) -> None:
        """Once the first run has made a step the second begins; then the first is told to stop."""
        monkeypatch.undo()
        _, err = here("main", *flags, data_dir=data_dir, code=REFUSED)
        assert f"error: {tmp_path} is in use by process {os.getpid()} on " in err
        os.kill(os.getpid(), signal.SIGTERM)
        metrics(self, *given)

    monkeypatch.setattr(Report, "metrics", meanwhile)
    _, err = here("main", *flags, data_dir=data_dir, code=PREEMPTED)
    assert (
        "stopped and saved at step 2; to go on: python -m alexnet_jax.main --distributed=off --config=" in err
    )
    assert not (tmp_path / HOLDER).exists()
