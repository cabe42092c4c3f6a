"""What is told of pace, waiting and memory."""

import time
from collections.abc import Iterator

import numpy as np
import pytest

from alexnet_jax.run.stopwatch import Stopwatch, memory_used


def slow(count: int, seconds: float) -> Iterator[int]:
    for number in range(count):
        time.sleep(seconds)
        yield number


def test_waiting_counts_where_devices_are_idle() -> None:
    """5 x 30 ms of waiting, and 5 x 30 ms of other things: a half, or nothing where they are at work."""
    for idle, share in ((True, 0.5), (False, 0.0)):
        watch = Stopwatch(10)
        watch.start()
        for number in watch.waiting(slow(5, 0.03), lambda idle=idle: idle):
            time.sleep(0.03)
            last = number
        pace, waited = watch.lap(15)
        assert last == 4
        assert waited == pytest.approx(share, abs=0.15)
        assert 5 < pace <= 5 / 0.3


def test_laps_begin_anew_and_leave_out_what_is_skipped() -> None:
    watch = Stopwatch(0)
    watch.start()
    list(watch.waiting(slow(1, 0.05), lambda: True))
    began = time.monotonic()
    assert watch.lap(1)[1] > 0.5
    time.sleep(0.2)
    watch.skip(0.2)
    time.sleep(0.02)
    watch.start()  # changes nothing
    pace, waited = watch.lap(4)
    assert waited == 0
    assert 3 / (time.monotonic() - began - 0.2) < pace <= 3 / 0.02


def test_memory_of_devices_that_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """GPUs and TPUs do, which are not here: the most that any of them has held."""

    class Device:
        def __init__(self, peak: int | None):
            self.peak = peak

        def memory_stats(self) -> dict[str, int] | None:
            return self.peak and {"peak_bytes_in_use": self.peak, "bytes_in_use": 1}

    monkeypatch.setattr("jax.local_devices", lambda: [Device(5), Device(9), Device(None)])
    assert memory_used() == 9


def test_memory() -> None:
    """CPUs don't tell: the process's, which grows by what it takes."""
    before = memory_used()
    taken = np.ones(2**25)  # 256 MiB
    assert 0.8 * taken.nbytes < memory_used() - before < 1.5 * taken.nbytes
