"""Stopping in order: a signal asks the loop to save and end, a second Ctrl-C ends it at once.

A signal to one of several processes stops all of them: JAX tells the others, and agrees on the last step.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import NoReturn

import jax
from jax.experimental import multihost_utils

from alexnet_jax.errors import PREEMPTED, Interrupted

AGAIN = 10  # seconds: time enough to clean up


class Guard:
    """A context in which TERM and the first Ctrl-C only ask for an end."""

    def __init__(self) -> None:
        self._asked, self._polls = False, 0
        self._many = jax.distributed.is_initialized()
        self._before: dict[signal.Signals, object] = {}

    def poll(self) -> bool:
        """Whether all processes stop here: asked in lockstep, by all of them at the same places."""
        self._polls += 1
        if self._many and not self._asked:
            self._asked = multihost_utils.reached_preemption_sync_point(self._polls)
        return self._asked

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
        if self._many:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self._asked = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, leave)


@contextlib.contextmanager
def interruptible(words: str) -> Iterator[None]:
    """A context for work that cannot poll: TERM and Ctrl-C end it where it is, and say so.

    By an exception, so that they clean up; where one is swallowed, as by what Python ignores in a destructor,
    another one comes `AGAIN` seconds later.
    """
    asked = []

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        asked.append(number)
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
        if asked:
            raise KeyboardInterrupt
    except KeyboardInterrupt as error:
        raise Interrupted(words) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def leave_in_order(number: int, frame: FrameType | None) -> None:
    """Ends a process that has nothing to save, yet or any more."""
    del number, frame
    sys.stderr.write("stopped, with nothing to save: the same command goes on\n")
    sys.stderr.flush()
    os._exit(PREEMPTED)


def leave(number: int, frame: FrameType | None) -> None:
    """Ends at once, not by an exception: interrupted libraries may crash, or swallow it and go on."""
    del frame
    sys.stderr.write("\nleft at once: what was saved before stays\n")
    sys.stderr.flush()
    os._exit(128 + number)  # as a shell names it
