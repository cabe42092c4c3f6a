"""What a check of this machine finds: a verdict and a line; with nothing but Python's own modules.

A check that fails is itself a finding: what is broken here must not end the one who looks for it.
"""

from __future__ import annotations  # an old Python is told so, in a line

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection

from alexnet_jax.errors import REFUSED, RefusedError, UserError

OK, WARN, MEND = "ok", "warn", "mend"
PATIENCE = 180  # seconds without a word, after which a process that looks is taken for stuck
DECIDING = ("XLA_FLAGS", "JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
LONGEST = 300  # characters of what a library says


@dataclass(frozen=True)
class Finding:
    """What was found of one thing; `warn` may be left as it is, `mend` keeps runs from working."""

    name: str
    verdict: str
    words: str

    def __str__(self) -> str:
        return f"{self.name:<10} {self.verdict:<4}  {' '.join(self.words.split())}"


# A verdict and its words.
Answer = tuple[str, str]
Check = Callable[..., Answer]


def size(count: float) -> str:
    """Bytes, for a person."""
    unit, worth = next((pair for pair in (("GB", 1e9), ("MB", 1e6)) if count >= pair[1]), ("kB", 1e3))
    return f"{count / worth:.{1 if unit == 'GB' else 0}f} {unit}"


def look(name: str, check: Check, *given: object) -> Finding:
    """What a check finds, or why it could not."""
    try:
        return Finding(name, *check(*given))
    except Exception as error:  # of whatever is broken here
        return Finding(name, MEND, reason(error))


def reason(error: Exception) -> str:
    """An error in a line."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        return f"{where}{error.strerror}"
    line = next(filter(None, map(str.strip, str(error).splitlines())), "")
    return f"{type(error).__name__}: {line:.{LONGEST}}" if line else type(error).__name__


def tell(findings: Iterable[Finding]) -> None:
    """Prints them as they come, and refuses where something must be mended."""
    bad = []
    for finding in findings:
        print(finding, flush=True)
        if finding.verdict == MEND:
            bad.append(finding.name)
    if bad:
        raise RefusedError(f"{len(bad)} of these must be mended first: {', '.join(bad)}")
    print("all is well", flush=True)


# What looks at several things: it gives the name of each before it looks, and then what it has found.
Looker = Callable[..., Iterator]


def apart(looker: Looker, *given: object, patience: float = PATIENCE) -> Iterator[Finding]:
    """What is found in a process of its own, which a broken driver may end, or stop for ever."""
    context = multiprocessing.get_context("spawn")
    ear, mouth = context.Pipe(duplex=False)
    process = context.Process(target=_speak, args=(mouth, looker, *given), daemon=True)
    process.start()
    mouth.close()
    name = looker.__name__
    try:
        while ear.poll(patience):
            said = ear.recv()
            if isinstance(said, Finding):
                yield said
            name = said.name if isinstance(said, Finding) else said
        yield Finding(name, MEND, f"no answer within {patience:g} s: what is asked here is stuck")
    except EOFError:
        process.join()
        if process.exitcode:
            words = f"the process that looks ended with {_ending(process.exitcode)}{_settings()}"
            yield Finding(name, MEND, f"{words}: see what it says on standard error")
    finally:
        process.kill()
        process.join()


def _ending(code: int) -> str:
    return f"exit code {code}" if code > 0 else signal.Signals(-code).name


def _settings() -> str:
    """What decides how libraries use devices."""
    there = [f"{name}={os.environ[name]}" for name in DECIDING if name in os.environ]
    return f", with {' '.join(there)} set" if there else ""


def _speak(mouth: Connection, looker: Looker, *given: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # without a word
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for said in looker(*given):
        mouth.send(said)
    mouth.close()
    os._exit(0)  # what libraries have to say as they end is no news


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(REFUSED)
