"""Stopping what asks nobody whether it should."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from alexnet_jax import signals
from alexnet_jax.errors import Interrupted
from alexnet_jax.signals import interruptible
from tests.commands.running import ROOT, STARTED


def handlers() -> list:
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_at_once(number: signal.Signals) -> None:
    """Interrupted work cleans up; afterwards all is as before."""
    before, cleaned = handlers(), []
    with pytest.raises(Interrupted, match="stopped here"), interruptible("stopped here"):
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        finally:
            cleaned.append(True)
    assert cleaned
    assert handlers() == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.parametrize("seconds", [0, 300])
def test_swallowed(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once: it ends a little later, or when it has come to its own end."""
    monkeypatch.setattr(signals, "AGAIN", 0.1 if seconds else 300)
    ended = []
    with pytest.raises(Interrupted, match="stopped here"), interruptible("stopped here"):
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            ended.append("not told")
        time.sleep(seconds)
        ended.append("by itself")
    assert ended == ([] if seconds else ["by itself"])


ENDING = """
import os, signal, sys
from alexnet_jax.errors import Interrupted
from alexnet_jax import cli
from alexnet_jax.signals import leave_in_order

class Slow:
    def __del__(self, wait=os.read, write=sys.stderr.write):
        write("the last that goes\\n")
        wait(0, 1)

def main():
    signal.signal(signal.SIGTERM, leave_in_order)
    {end}

slow = Slow()
cli.run(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("end", "code"), [("raise Interrupted('saved')", 42), ("pass", 0), ("1 / 0", 1)])
def test_told_again_while_it_ends(end: str, code: int) -> None:
    """A second TERM, as by srun, changes no exit code: saved, complete or failed."""
    words, pipe = [sys.executable, "-c", ENDING.format(end=end)], subprocess.PIPE
    process = subprocess.Popen(words, cwd=ROOT, stdin=pipe, stderr=pipe, text=True)
    STARTED.append(process)
    assert any(line == "the last that goes\n" for line in process.stderr)
    process.terminate()
    process.communicate("\n", timeout=300)
    assert process.returncode == code
