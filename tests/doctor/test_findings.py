"""Checks that fail become a line."""

import errno
from collections.abc import Iterator

import pytest

from alexnet_jax.doctor.findings import FIX, OK, WARN, Finding, Judged, check, report
from alexnet_jax.errors import RefusedError


def test_a_check_that_fails() -> None:
    def examine(error: Exception) -> Judged:
        raise error

    for error, words in (
        (RefusedError("say\nthis"), "say this"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: Permission denied"),
        (RuntimeError("\n  first\nsecond"), "RuntimeError: first"),
        (KeyError(), "KeyError"),
        (ValueError("x" * 1000), f"ValueError: {'x' * 300}"),
    ):
        assert check("name", examine, error) == Finding("name", FIX, words)


def test_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each as it is found; what must be fixed is refused, warnings are not."""
    report([Finding("a", OK, "fine"), Finding("long name", WARN, "in\n two  lines")])
    out = "a          ok    fine\nlong name  warn  in two lines\n"
    assert capsys.readouterr().out == out + "all is well\n"

    def one_by_one() -> Iterator[Finding]:
        yield Finding("b", FIX, "x")
        assert capsys.readouterr().out == "b          fix   x\n"
        yield Finding("c", FIX, "y")

    with pytest.raises(RefusedError, match="2 of these must be fixed first: b, c"):
        report(one_by_one())
    assert capsys.readouterr().out == "c          fix   y\n"
