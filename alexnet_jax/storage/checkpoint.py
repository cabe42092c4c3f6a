"""Checkpoints of everything that a run has learnt: saved while it goes on, verified when they are read.

Orbax writes and reads them. Ours are the digests, as Orbax restores flipped bits without a word, and the way
back to the newest checkpoint that is whole.
"""

import asyncio
import contextlib
import hashlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental.multihost_utils import sync_global_devices

from alexnet_jax.cluster.agreement import from_first, gather_words
from alexnet_jax.errors import RefusedError
from alexnet_jax.learning.digest import digests
from alexnet_jax.text import first_line

PROGRESS = "progress"
BARRIER_TIMEOUT = 600  # seconds that processes wait for the slowest to write its part


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint: `arrays`, any tree, and `progress`, plain values."""

    step: int
    arrays: Any
    progress: dict[str, Any]


class Retention:
    """A preservation policy of Orbax; none of its own has "the first after each period"."""

    def __init__(self, last: int, period: Callable[[int], int] = lambda _: 0):
        """The `last` newest, and the first after each period, of which a step is in number `period(step)`."""
        self.last, self.period = last, period
        self.errors: dict[int, float] = {}  # by step: the best stays too

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        periods = [0, *map(self.period, steps)]
        first = {step for step, before, now in zip(steps, periods, periods[1:], strict=False) if now > before}
        best = {min((step for step in steps if step in self.errors), key=self.errors.get, default=None)}
        return [step in {*first, *best, *steps[-self.last :]} for step in steps]


class DamagedError(RefusedError):
    """A checkpoint is not what was saved."""


class _Manager(ocp.CheckpointManager):
    """Leaves preemption to the loop: Orbax would poll JAX with another number than the loop does."""

    def reached_preemption(self, step: int) -> bool:
        del step
        return False


class Checkpoints:
    """`STEP/` folders below a path; the newest that is whole is where a run resumes."""

    def __init__(self, path: Path, retention: Retention | None = None):
        """Opens to read only, or to write, where `retention` says which checkpoints stay."""
        self.path, self.retention, self._writing = path, retention, None
        # Where a read or a write fails Orbax closes its event loop on the others, each of which would print a
        # traceback of forty lines. Its threads outlive this call, so this stays in place.
        asyncio.new_event_loop = _TidyLoop
        self._manager = self._open_manager()
        # Reads without talking to other processes: one of them may fail.
        me = jax.process_index()
        own = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me})
        options = ocp.CompositeOptions(multiprocessing_options=own)
        handler = ocp.CompositeCheckpointHandler(composite_options=options)
        self._reader = ocp.Checkpointer(handler, multiprocessing_options=own)

    def _open_manager(self) -> ocp.CheckpointManager:
        """Opens the folder; what was half written by a process that was killed goes."""
        writes = self.retention is not None
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self.retention,
            create=writes,
            cleanup_tmp_directories=writes,
            read_only=not writes,
            async_options=ocp.AsyncOptions(timeout_secs=BARRIER_TIMEOUT),
        )
        return _Manager(self.path, options=options)

    def latest(self, below: float = float("inf")) -> int | None:
        """The newest step, of those below one; the same in all processes."""
        step = from_first(max((step for step in self._manager.all_steps() if step < below), default=-1))
        return None if step < 0 else step

    def save(self, step: int, arrays: Any, progress: dict[str, Any]) -> None:
        """Starts writing; the caller may go on at once. Whatever happens, earlier checkpoints stay."""
        if step in self._manager.all_steps():
            return
        items = ocp.args.Composite(
            arrays=ocp.args.StandardSave(arrays),
            progress=ocp.args.JsonSave(progress),
            digests=ocp.args.JsonSave(_digests(arrays, progress)),
        )
        self._writing = step
        with self._failures_named():
            self._manager.save(step, args=items, force=True)

    def wait(self) -> None:
        """Returns when everything is on disk."""
        with self._failures_named():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Ends what is under way; who wants to know whether it was written waits for it before."""
        self._reader.close()
        with contextlib.suppress(Exception):
            self._manager.close()

    def newest(self, abstract: Any) -> Checkpoint | None:
        """The newest that is whole, if anything was saved; says which it passes over, and why."""
        damaged, step = [], self.latest()
        while step is not None:
            try:
                found = self.restore(step, abstract)
            except DamagedError as error:
                if jax.process_index() == 0:
                    print(f"passed over: {error}", file=sys.stderr, flush=True)
                damaged.append(step)
                step = self.latest(below=step)
            else:
                if damaged and self.retention:
                    self._put_aside(damaged)
                return found
        if damaged:
            words = f"no checkpoint in {self.path} is whole, of {len(damaged)}"
            raise RefusedError(f"{words}; move the folder away to start anew")
        return None

    def choose(self, step: int | None, abstract: Any) -> Checkpoint:
        """The step that is asked for, or else the newest that is whole."""
        there = sorted(self._manager.all_steps())
        if step is not None and step not in there:
            listed = ", ".join(map(str, there)) or "none"
            raise RefusedError(f"{self.path.parent} has no checkpoint of step {step}; it has {listed}")
        found = self.newest(abstract) if step is None else self.restore(step, abstract)
        if found is None:
            raise RefusedError(f"{self.path.parent} has no checkpoint yet")
        return found

    def restore(self, step: int, abstract: Any) -> Checkpoint:
        """Restores a step, placed as `abstract` says, on whatever mesh that is."""
        found, damage, passing, path = None, "", "", self.path / str(step)
        items = ocp.args.Composite(
            arrays=ocp.args.StandardRestore(abstract),
            progress=ocp.args.JsonRestore(),
            digests=ocp.args.JsonRestore(),
        )
        try:
            found = self._reader.restore(path, args=items)
        except Exception as error:  # among them bare ones, for files that are cut off
            damage, passing = _short(error), _unreadable(path)
        # All processes learn of it before any goes on: they compute the digests together.
        for words in filter(None, gather_words(passing)):
            raise RefusedError(f"{path} cannot be read now ({words}); the same command tries it again")
        for words in filter(None, gather_words(damage)):
            raise DamagedError(f"{path} is damaged ({words})")
        if damage := _difference(found.digests, _digests(found.arrays, found.progress)):
            raise DamagedError(f"{path} is damaged ({damage})")
        return Checkpoint(step, found.arrays, found.progress)

    @contextlib.contextmanager
    def _failures_named(self) -> Iterator[None]:
        """Refuses in all processes where a checkpoint could not be written by one."""
        failed = None
        try:
            yield
        except Exception as error:  # jaxlib's, TensorStore's, the system's
            failed = error
        words = list(filter(None, gather_words(_short(failed) if failed else "")))
        if words:
            with contextlib.suppress(Exception):
                self._manager.close()
            self._manager = self._open_manager()  # the old one no longer knows what is there
            raise RefusedError(f"step {self._writing} could not be saved: {words[0]}") from failed

    def _put_aside(self, steps: list[int]) -> None:
        """Renames damaged ones, so that a run may write these steps again."""
        for step in steps if jax.process_index() == 0 else ():
            names = (self.path / f"damaged-{step}{f'-{n}' if n else ''}" for n in itertools.count())
            (self.path / str(step)).rename(next(name for name in names if not name.exists()))
        sync_global_devices("damaged checkpoints moved")
        self._manager.reload()


def _digests(arrays: Any, progress: dict[str, Any]) -> dict[str, str]:
    text = json.dumps(progress, sort_keys=True)
    return digests(arrays) | {PROGRESS: hashlib.sha256(text.encode()).hexdigest()[:16]}


def _short(error: Exception) -> str:
    """The first line of a library's error; its beginning and its end where it is long."""
    line = first_line(error).partition(" [")[0]  # TensorStore appends its specification
    return line if len(line) < 150 else f"{line[:70]} ... {line[-70:]}"


def _unreadable(path: Path) -> str:
    """Why the system does not let files be read, which then may be whole; "" where it does."""
    try:
        for file in path.rglob("*"):
            if file.is_file():
                with file.open("rb") as content:
                    while content.read(1 << 24):
                        pass
    except (OSError, MemoryError) as error:
        return getattr(error, "strerror", None) or type(error).__name__
    return ""


def _difference(saved: Any, found: dict[str, str]) -> str:
    """The first array that is not as it was saved."""
    if saved == found:
        return ""
    saved = saved if isinstance(saved, dict) else {}
    names = sorted(name for name in {*saved, *found} if saved.get(name) != found.get(name))
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"not what was saved: {names[0]}{others}"


class _TidyLoop(asyncio.SelectorEventLoop):
    """Ends its tasks before it closes, and ignores what other threads still call it for."""

    def close(self) -> None:
        left = () if self.is_closed() else asyncio.all_tasks(self)
        for task in left:
            task.cancel()
        if left:
            self.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        super().close()

    def call_soon_threadsafe(self, *given: Any, **named: Any) -> asyncio.Handle | None:
        try:
            return super().call_soon_threadsafe(*given, **named)
        except RuntimeError:
            if not self.is_closed():
                raise
        return None
