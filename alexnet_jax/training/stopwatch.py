"""Measures the speed of a run, the share of time that devices wait for pictures, and memory."""

import math
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from alexnet_jax.learning.state import Batch

STATM = Path("/proc/self/statm")


class Stopwatch:
    """The time of training alone: what is skipped, such as evaluations, is no part of it."""

    def __init__(self, first: int, clock: Callable[[], float] = time.monotonic):
        self._since, self._began, self._waited, self._clock = first, math.nan, 0.0, clock

    def start(self) -> None:
        """Once the first step is compiled; further calls change nothing."""
        if math.isnan(self._began):
            self._began, self._waited = self._clock(), 0.0

    def skip(self, seconds: float) -> None:
        self._began += seconds

    def waiting(self, batches: Iterator[Batch], idle: Callable[[], bool]) -> Iterator[Batch]:
        """The batches. Waiting for one counts where the devices have nothing left to do once it is there."""
        while True:
            began = self._clock()
            batch = next(batches, None)
            if batch is None:
                return
            if idle():
                self._waited += self._clock() - began
            yield batch

    def lap(self, step: int) -> tuple[float, float]:
        """Since the last lap: steps a second, and the share of its time that was spent waiting."""
        now = self._clock()
        seconds, steps = now - self._began, step - self._since
        share = min(self._waited / seconds, 1.0)
        self._since, self._began, self._waited = step, now, 0.0
        return steps / seconds, share


def memory_used() -> int:
    """Bytes: the most that a device of this process has held, or else what the process holds now."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [found["peak_bytes_in_use"] for found in stats if "peak_bytes_in_use" in found]
    if peaks:
        return max(peaks)
    if STATM.exists():
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
