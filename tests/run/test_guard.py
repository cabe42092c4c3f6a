"""Stopping what asks nobody whether it should."""

import contextlib
import os
import signal
import time

import pytest

from alexnet_jax.errors import Interrupted
from alexnet_jax.run import guard
from alexnet_jax.run.guard import interruptible


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
