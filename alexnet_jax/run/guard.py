"""Stopping in order: a signal asks the loop to save and end, a second Ctrl-C ends it at once.

A signal to one of several processes is one to all: JAX tells them, and which step is the last.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils

from alexnet_jax.errors import Interrupted


class Guard:
    """While active, TERM and the first Ctrl-C only set `asked`."""

    def __init__(self) -> None:
        self.asked = False
        self._many = jax.distributed.is_initialized()
        self._before: dict[signal.Signals, object] = {}

    def asked_at(self, step: int) -> bool:
        """Whether all processes stop at this step; to be called for every step, in every process."""
        return multihost_utils.reached_preemption_sync_point(step) if self._many else self.asked

    def __enter__(self) -> "Guard":
        # TERM is JAX's own among several: a handler here would hide it.
        for number in (signal.SIGINT,) if self._many else (signal.SIGINT, signal.SIGTERM):
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
        if self._many:
            os.kill(os.getpid(), signal.SIGTERM)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, leave)


@contextlib.contextmanager
def interruptible(words: str) -> Iterator[None]:
    """While others are at work, who ask nobody: TERM and Ctrl-C end it where it is, and say so."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted(words) from error
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def leave(number: int, frame: FrameType | None) -> None:
    """Not by an exception: libraries that are interrupted may crash, or swallow it and go on."""
    del frame
    sys.stderr.write("\nleft at once: what was saved before stays\n")
    sys.stderr.flush()
    os._exit(128 + number)  # as a shell names it
