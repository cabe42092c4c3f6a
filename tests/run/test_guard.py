"""Stopping what asks nobody whether it should."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from alexnet_jax.errors import Interrupted
from alexnet_jax.run import guard
from alexnet_jax.run.guard import interruptible
from tests.run.commands import ROOT, STARTED


def handlers() -> list:
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_at_once(number: signal.Signals) -> None:
    """What is interrupted cleans up; afterwards all is as before."""
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


@pytest.mark.parametrize("seconds", [0, 60])
def test_swallowed(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once: it ends a little later, or when it has come to its own end."""
    monkeypatch.setattr(guard, "AGAIN", 0.2)
    began = time.monotonic()
    with pytest.raises(Interrupted, match="stopped here"), interruptible("stopped here"):
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        time.sleep(seconds)
    assert time.monotonic() - began < 10


ENDING = """
import signal, sys, time
from alexnet_jax.errors import Interrupted
from alexnet_jax.run import processes
from alexnet_jax.run.guard import leave_in_order

class Slow:
    def __del__(self, sleep=time.sleep, write=sys.stderr.write):
        write("the last that goes\\n")
        sleep(5)

def main():
    signal.signal(signal.SIGTERM, leave_in_order)
    {end}

slow = Slow()
processes.run(main)
"""


@pytest.mark.parametrize(("end", "code"), [("raise Interrupted('saved')", 42), ("pass", 0), ("1 / 0", 1)])
def test_told_again_while_it_ends(end: str, code: int) -> None:
    """As by srun, where another task has ended: who has saved, is complete or failed says so for all that."""
    words = [sys.executable, "-c", ENDING.format(end=end)]
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    STARTED.append(process)
    with process.stderr as said:
        assert any(line == "the last that goes\n" for line in said)
        process.terminate()
        said.read()
    assert process.wait(30) == code
