"""Pace, waiting and memory as reported."""

from collections.abc import Iterator

import numpy as np
import pytest

from alexnet_jax.training.stopwatch import Stopwatch, memory_used


class Clock:
    """Goes on where it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def slow(self, count: int, seconds: float) -> Iterator[int]:
        for number in range(count):
            self.now += seconds
            yield number


def test_waiting_counts_where_devices_are_idle() -> None:
    """5 x 3 s of waiting, and 5 x 3 s of other things: a half, or nothing where they are at work."""
    for idle, share in ((True, 0.5), (False, 0.0)):
        clock = Clock()
        watch = Stopwatch(10, clock)
        watch.start()
        for number in watch.waiting(clock.slow(5, 3), lambda idle=idle: idle):
            clock.now += 3
            last = number
        assert last == 4
        assert watch.lap(15) == pytest.approx((5 / 30, share))


def test_laps_begin_anew_and_leave_out_what_is_skipped() -> None:
    clock = Clock()
    watch = Stopwatch(0, clock)
    list(watch.waiting(clock.slow(1, 50), lambda: True))  # for the first batch, before the compilation
    watch.start()
    list(watch.waiting(clock.slow(1, 4), lambda: True))
    assert watch.lap(1) == pytest.approx((1 / 4, 1))
    clock.now += 20
    watch.skip(20)
    clock.now += 2
    watch.start()  # changes nothing
    assert watch.lap(4) == pytest.approx((3 / 2, 0))


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
