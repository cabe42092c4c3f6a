"""Reports of a run: with a terminal, without one, quietly, and where another process writes."""

import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from alexnet_jax.config.fields import Config
from alexnet_jax.reporting.report import HostStatus, Report
from alexnet_jax.storage.workdir import Workdir
from tests.commands.running import lines

VALUES = {
    "loss": 0.09412,
    "top1_error": 0.029,
    "top5_error": 0.0,
    "learning_rate": 1e-4,
    "images_per_second": 820.4,
}
BESIDE = HostStatus(epoch=17.6, waiting=0.034, memory=412_000_000)


def tell(config: Config, workdir: Workdir, *, quiet: bool = False) -> None:
    """Steps 100 and 200 of 400, a validation, and a warning."""
    report = Report(config, workdir, 99, 400, quiet=quiet)
    report.say("run    400 steps")
    report.step(100)
    report.metrics(100, "train", VALUES, BESIDE)
    report.step(200)
    report.metrics(200, "train", VALUES, BESIDE)
    report.metrics(200, "validation", {name: VALUES[name] for name in ("loss", "top1_error", "top5_error")})
    report.warn("not saved: the disk is full")
    report.close()


TRAINED = "train       loss 0.0941  top-1 error 2.9 %  top-5 error 0.0 %  rate 0.0001  820 images/s"
AROUND = "epoch 17.60  waiting 3 %  memory 0.41 GB"
VALIDATED = "    200/400  validation  loss 0.0941  top-1 error 2.9 %  top-5 error 0.0 %"


def test_without_a_terminal(narrow: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Plain lines; the log has the figures alone, in this order."""
    tell(narrow, Workdir(str(tmp_path)))
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "run    400 steps",
        f"    100/400  {TRAINED}  {AROUND}  ? left",
        f"    200/400  {TRAINED}  {AROUND}  00:00 left",
        VALIDATED,
        "not saved: the disk is full",
    ]
    assert err == ""
    logged = lines(tmp_path, but=())
    assert list(logged[0]) == ["step", "split", *VALUES]
    assert list(logged[2]) == ["step", "split", "loss", "top1_error", "top5_error"]


@contextlib.contextmanager
def terminal() -> Iterator[list[str]]:
    """A real one, 200 columns wide, as standard error; afterwards the list has what was written to it.

    No fixture: pytest puts its own standard error back before a test is called.
    """
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
    seen, found = [], b""
    with open(slave, "w") as screen, contextlib.redirect_stderr(screen):  # noqa: PTH123
        yield seen
    while True:
        try:
            found += os.read(master, 4096)
        except OSError:  # as Linux tells the end
            break
    os.close(master)
    seen.append(found.decode())


def test_on_a_terminal(narrow: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bar with all of it; only the other lines stay."""
    with terminal() as seen:
        tell(narrow, Workdir(str(tmp_path)))
    [bar] = seen
    assert capsys.readouterr().out.splitlines() == [
        "run    400 steps",
        VALIDATED,
        "not saved: the disk is full",
    ]
    assert "200/400 |" in bar
    words = "epoch 17.6  loss 0.094  errors 2.9/0.0 %  rate 0.0001  820 images/s  waiting 3 %  0.4 GB"
    assert f"left  {words}" in bar
    assert bar.rstrip(" ").endswith("\r")  # it is wiped out
    assert [line["step"] for line in lines(tmp_path)] == [100, 200, 200]


def test_quiet(narrow: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Even on a terminal only what must not be missed; the log is the same."""
    with terminal() as seen:
        tell(narrow, Workdir(str(tmp_path)), quiet=True)
    assert seen == [""]
    assert capsys.readouterr().out == "not saved: the disk is full\n"
    assert [line["step"] for line in lines(tmp_path)] == [100, 200, 200]


def test_where_another_process_writes(
    narrow: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with terminal() as seen:
        tell(narrow, Workdir(str(tmp_path), process=1))
    assert (seen, capsys.readouterr().out) == ([""], "")
    assert list(tmp_path.iterdir()) == []
