"""Stopping in order: a signal asks the loop to save and end, a second Ctrl-C ends it at once."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType, TracebackType

from alexnet_jax.errors import STOPPED, Interrupted


class Guard:
    """While active, TERM and the first Ctrl-C only set `asked`."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Guard":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.asked = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, _leave)


@contextlib.contextmanager
def interruptible(words: str) -> Iterator[None]:
    """While others are at work, who ask nobody: TERM and Ctrl-C end it where it is, and say so."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted(words) from error
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, frame: FrameType | None) -> None:
    """Not by an exception: libraries that are interrupted while they compile may crash."""
    del number, frame
    sys.stderr.write("\nleft at once: what was saved before stays\n")
    sys.stderr.flush()
    os._exit(STOPPED)
