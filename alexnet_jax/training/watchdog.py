"""Ends a process that stands still: where a peer hangs, JAX waits for it for ever."""

import faulthandler
import math
import time
from types import TracebackType

import jax

STDERR = 2
MARGIN = 5  # seconds


class Watchdog:
    """Prints all stacks and exits with code 1 after `seconds` without a sign of life.

    It needs no interpreter to do so, which may hang too.
    """

    def __init__(self, seconds: float):
        # Process 0 comes last: JAX aborts all others with it, before they have said where they stand.
        last = jax.distributed.is_initialized() and jax.process_index() == 0
        self.seconds, self._wound = seconds + MARGIN * (last and seconds > 0), -math.inf

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        faulthandler.cancel_dump_traceback_later()

    def alive(self) -> None:
        """A sign of life. The first one starts the clock: compiling the step takes as long as it takes."""
        now = time.monotonic()
        if self.seconds and now - self._wound > 1:  # each time takes a thread
            self._wound = now
            faulthandler.dump_traceback_later(self.seconds, exit=True, file=STDERR)
