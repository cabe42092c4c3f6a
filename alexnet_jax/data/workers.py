"""Processes that each work through one file of a packed set at a time, and tell how they are doing."""

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from typing import Any

import tensorflow as tf

# Pictures done since the last one, or what is known of one that cannot be used.
Message = int | dict[str, str]
Job = Callable[..., Iterator[Message]]

PAUSE = 0.2  # seconds between messages


def run_tasks(job: Job, tasks: Sequence[tuple], processes: int) -> Iterator[Message]:
    """Yields what `job(*task)` yields for each task, from as many processes; close it to stop them.

    The processes also end when this one dies. A single one would only cost its start: it is this one.
    """
    if min(processes, len(tasks)) > 1:
        yield from _run_in_processes(job, tasks, min(processes, len(tasks)))
    else:
        for task in tasks:
            yield from job(*task)


def _run_in_processes(job: Job, tasks: Sequence[tuple], processes: int) -> Iterator[Message]:
    context = multiprocessing.get_context("spawn")
    stop, messages = context.Event(), context.Queue()
    pool = ProcessPoolExecutor(processes, context, _begin, (stop, messages))
    waiting, running = iter(tasks), set()
    try:
        while True:
            with _no_ctrl_c():
                for task in itertools.islice(waiting, 2 * processes - len(running)):
                    running.add(pool.submit(_work, job, task))
            if not running:
                break
            done, running = wait(running, timeout=PAUSE, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            yield from _arrived(messages)
        yield from _arrived(messages)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _no_ctrl_c() -> Iterator[None]:
    """Processes that are started here never hear it; this one hears it a little later."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _arrived(messages: Queue) -> Iterator[Message]:
    while not messages.empty():
        yield messages.get()
    yield 0  # a chance to stop, where nothing has arrived


_process: dict[str, Any] = {}  # what `_begin` leaves for `_work`


def _begin(stop: Event, messages: Queue) -> None:
    """Makes a process one of many: it takes one core."""
    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    _process.update(stop=stop, messages=messages)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _work(job: Job, task: tuple) -> None:
    """Works through one task, or leaves it where the parent asks to stop."""
    pictures, told = 0, time.monotonic()
    messages = job(*task)
    for message in messages:
        if isinstance(message, dict):
            _process["messages"].put(message)
        else:
            pictures += message
        if time.monotonic() - told > PAUSE:
            _process["messages"].put(pictures)
            pictures, told = 0, time.monotonic()
        if _process["stop"].is_set():
            messages.close()
    _process["messages"].put(pictures)
