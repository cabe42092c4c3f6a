"""What is broken becomes a line, also where it ends the process that looks."""

import errno
import itertools
import os
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest

from alexnet_jax.errors import RefusedError
from alexnet_jax.run.findings import MEND, OK, WARN, Answer, Finding, apart, look, size, tell


def test_a_check_that_fails() -> None:
    def check(error: Exception) -> Answer:
        raise error

    for error, words in (
        (RefusedError("say\nthis"), "say this"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: Permission denied"),
        (RuntimeError("\n  first\nsecond"), "RuntimeError: first"),
        (KeyError(), "KeyError"),
        (ValueError("x" * 1000), f"ValueError: {'x' * 300}"),
    ):
        assert look("name", check, error) == Finding("name", MEND, words)


def test_what_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """As it is found; what must be mended is refused, warnings are not."""
    tell([Finding("a", OK, "fine"), Finding("long name", WARN, "in\n two  lines")])
    out = "a          ok    fine\nlong name  warn  in two lines\n"
    assert capsys.readouterr().out == out + "all is well\n"

    def one_by_one() -> Iterator[Finding]:
        yield Finding("b", MEND, "x")
        assert capsys.readouterr().out == "b          mend  x\n"
        yield Finding("c", MEND, "y")

    with pytest.raises(RefusedError, match="2 of these must be mended first: b, c"):
        tell(one_by_one())
    assert capsys.readouterr().out == "c          mend  y\n"


def test_sizes() -> None:
    assert [size(n) for n in (487_721_796, 2.44e9, 30_500, 0)] == ["488 MB", "2.4 GB", "30 kB", "0 kB"]


def looker(deed: str) -> Iterator[str | Finding]:
    yield "first"
    yield Finding("first", OK, f"{os.getpid()}")
    yield "second"
    if deed == "abort":
        os.abort()
    if deed == "sleep":
        time.sleep(600)
    yield Finding("second", OK, "done")


@pytest.mark.parametrize(
    ("deed", "verdict", "words"),
    [("abort", MEND, "ended with SIGABRT"), ("sleep", MEND, "no answer within 300 s"), ("", OK, "done")],
)
def test_a_process_of_its_own(deed: str, verdict: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may crash or hang: what it was at is named, and it is gone."""
    poll, waits = Connection.poll, itertools.count(1)

    def less_patient(self: Connection, seconds: float) -> bool:
        """After its third message the one that sleeps has nothing more to say."""
        assert seconds == 300
        return poll(self, 0 if deed == "sleep" and next(waits) == 4 else seconds)

    monkeypatch.setattr(Connection, "poll", less_patient)
    first, second = apart(looker, deed, patience=300)
    assert first.name == "first"
    assert first.verdict == OK
    assert second.name == "second"
    assert second.verdict == verdict
    assert words in second.words
    with pytest.raises(ProcessLookupError):
        os.kill(int(first.words), 0)
