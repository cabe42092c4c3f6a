"""The findings of a check of this machine; a check that fails is itself one."""

from __future__ import annotations  # so that an old Python gets as far as its finding

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from alexnet_jax.errors import RefusedError, UserError

OK, WARN, FIX = "ok", "warn", "fix"
LONGEST = 300  # characters of what a library says


@dataclass(frozen=True)
class Finding:
    """The result of one check; `warn` may be left as it is, `fix` keeps runs from working."""

    name: str
    verdict: str
    words: str

    def __str__(self) -> str:
        return f"{self.name:<10} {self.verdict:<4}  {' '.join(self.words.split())}"


Judged = tuple[str, str]  # a verdict and its words


def check(name: str, examine: Callable[..., Judged], *given: object) -> Finding:
    """The finding of `examine`; an error that it raises is one to fix."""
    try:
        return Finding(name, *examine(*given))
    except Exception as error:  # of whatever is broken here
        return Finding(name, FIX, reason(error))


def reason(error: Exception) -> str:
    """An error in a line."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        return f"{where}{error.strerror}"
    line = next(filter(None, map(str.strip, str(error).splitlines())), "")
    return f"{type(error).__name__}: {line:.{LONGEST}}" if line else type(error).__name__


def report(findings: Iterable[Finding]) -> None:
    """Prints them as they come, and refuses where something must be fixed."""
    bad = []
    for finding in findings:
        print(finding, flush=True)
        if finding.verdict == FIX:
            bad.append(finding.name)
    if bad:
        raise RefusedError(f"{len(bad)} of these must be fixed first: {', '.join(bad)}")
    print("all is well", flush=True)
