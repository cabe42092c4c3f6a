"""Checkpoints of everything that a run has learnt: saved while it goes on, verified when they are read."""

import asyncio
import contextlib
import hashlib
import itertools
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from alexnet_jax.errors import RefusedError
from alexnet_jax.learning.digest import digests
from alexnet_jax.run.cluster import agreed, told_by_all

PROGRESS = "progress"
MIB = 2**20
PATIENCE = 600  # seconds that processes wait for the slowest to write its part
NOW = "cannot be read now"  # of what may be whole for all that
# What errors of the system, of TensorStore and of devices say then.
PASSING = "RESOURCE_EXHAUSTED|PERMISSION_DENIED|UNAVAILABLE|Too many open files|Permission denied"
PASSING += "|Input/output error|Stale file handle|Cannot allocate memory|MemoryError"


@dataclass(frozen=True)
class Checkpoint:
    """What was saved at a step: `arrays`, any tree, and `progress`, plain values."""

    step: int
    arrays: Any
    progress: dict[str, Any]


class Kept:
    """Which checkpoints stay, as Orbax asks for it."""

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
    """Does not ask JAX whether to stop: it would give another number than the loop, which does."""

    def reached_preemption(self, step: int) -> bool:
        del step
        return False


class Checkpoints:
    """`STEP/` folders below a path; the newest that is whole is where a run resumes."""

    def __init__(self, path: Path, kept: Kept | None = None):
        """Opens the folder; to write, `kept` says which ones stay, and old leftovers go."""
        self.path, self.kept, self._writes = path, kept, kept is not None
        # Where a read or a write fails Orbax closes its loop on the others, which complain one by one when
        # they end. It makes such loops in threads that outlive the calls below: this one stays.
        asyncio.new_event_loop = _TidyLoop
        self._manager, self._writing = self._open(), None
        # Reads without a word to other processes: one of them may fail.
        me = jax.process_index()
        own = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me})
        handler = ocp.CompositeCheckpointHandler(
            composite_options=ocp.CompositeOptions(multiprocessing_options=own)
        )
        self._reader = ocp.Checkpointer(handler, multiprocessing_options=own)

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self.kept,
            create=self._writes,
            cleanup_tmp_directories=self._writes,
            read_only=not self._writes,
            async_options=ocp.AsyncOptions(timeout_secs=PATIENCE),
        )
        return _Manager(self.path, options=options)

    def latest(self, below: float = float("inf")) -> int | None:
        """The newest step, of those below one; the same in all processes."""
        step = agreed(max((step for step in self._manager.all_steps() if step < below), default=-1))
        return None if step < 0 else step

    def save(self, step: int, arrays: Any, progress: dict[str, Any]) -> None:
        """Starts writing; the caller may go on at once. Whatever happens, what was saved before stays."""
        if step in self._manager.all_steps():
            return
        # Written uncompressed, and beside those that it may replace.
        needed = 1 + sum(leaf.nbytes for leaf in jax.tree.leaves(arrays)) * 11 // 10 // MIB
        free = agreed(self._free())
        if free < needed:
            words = f"step {step} needs {needed} MiB below {self.path}, where {free} MiB are free"
            raise RefusedError(words)
        items = ocp.args.Composite(
            arrays=ocp.args.StandardSave(arrays),
            progress=ocp.args.JsonSave(progress),
            digests=ocp.args.JsonSave(_digests(arrays, progress)),
        )
        self._writing = step
        with self._written():
            self._manager.save(step, args=items, force=True)

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
        """What was saved at a step, placed as `abstract` says, on whatever mesh that is."""
        found, reason = None, ""
        items = ocp.args.Composite(
            arrays=ocp.args.StandardRestore(abstract),
            progress=ocp.args.JsonRestore(),
            digests=ocp.args.JsonRestore(),
        )
        try:
            found = self._reader.restore(self.path / str(step), args=items)
        except Exception as error:  # among them bare ones, for files that are cut off
            reason = _reason(error)
            if re.search(PASSING, f"{type(error).__name__} {error}"):
                reason = f"{NOW} ({reason})"
        # All hear it before any goes on: what comes next they compute together.
        told = sorted(filter(None, told_by_all(reason)), key=lambda words: not words.startswith(NOW))
        if told and told[0].startswith(NOW):
            raise RefusedError(f"{self.path / str(step)} {told[0]}; the same command tries it again")
        reason = told[0] if told else _difference(found.digests, _digests(found.arrays, found.progress))
        if reason:
            raise DamagedError(f"{self.path / str(step)} is damaged ({reason})")
        return Checkpoint(step, found.arrays, found.progress)

    def wait(self) -> None:
        """Returns when everything is on disk."""
        with self._written():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Ends what is under way; who wants to know whether it has been written waits for it before."""
        self._reader.close()
        with contextlib.suppress(Exception):
            self._manager.close()

    def _free(self) -> int:
        """MiB on disk, as process 0 sees it."""
        if jax.process_index():
            return 0
        try:
            return min(shutil.disk_usage(self.path).free // MIB, 2**31 - 1)
        except OSError:  # the folder is gone: what comes next says so
            return 0

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """Names what went wrong while a checkpoint was written, in whichever process."""
        failed = None
        try:
            yield
        except Exception as error:  # jaxlib's, TensorStore's, the system's
            failed = error
        told = list(filter(None, told_by_all(_reason(failed) if failed else "")))
        if told:
            with contextlib.suppress(Exception):
                self._manager.close()
            self._manager = self._open()  # the old one no longer knows what is there
            raise RefusedError(f"step {self._writing} could not be saved: {told[0]}") from failed

    def _put_aside(self, steps: list[int]) -> None:
        """Takes damaged ones out of the way of those that a run will write, and of what counts them."""
        if not (steps and self._writes):
            return
        if jax.process_index() == 0:
            for step in steps:
                names = (self.path / f"damaged-{step}{'-' * (n > 0)}{n or ''}" for n in itertools.count())
                (self.path / str(step)).rename(next(name for name in names if not name.exists()))
        agreed(0)  # nobody looks before
        self._manager.reload()


def _digests(arrays: Any, progress: dict[str, Any]) -> dict[str, str]:
    text = json.dumps(progress, sort_keys=True)
    return digests(arrays) | {PROGRESS: hashlib.sha256(text.encode()).hexdigest()[:16]}


def _reason(error: Exception) -> str:
    """In a line that is not too long: TensorStore's begin with what failed, and have why before brackets."""
    if re.search("barrier timed out|timed out while waiting for .*barrier", str(error), re.IGNORECASE):
        return f"not every process has written its part within {PATIENCE} s"
    line = next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
    line = re.sub(r" \[\w+='.*", "", line)  # codes, and the whole of what it was told
    return line if len(line) < 150 else f"{line[:40]} ... {line[-100:]}"


def _difference(saved: Any, found: dict[str, str]) -> str:
    """What is not as it was saved, in words."""
    if saved == found:
        return ""
    saved = saved if isinstance(saved, dict) else {}
    names = sorted(name for name in {*saved, *found} if saved.get(name) != found.get(name))
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"not what was saved: {names[0]}{others}"


class _TidyLoop(asyncio.SelectorEventLoop):
    """Ends what is under way before it closes; what other threads still have to say then is not heard."""

    def close(self) -> None:
        left = () if self.is_closed() else asyncio.all_tasks(self)
        for task in left:
            task.cancel()
        if left:
            self.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        super().close()

    def call_soon_threadsafe(self, *given: Any, **more: Any) -> asyncio.Handle | None:
        try:
            return super().call_soon_threadsafe(*given, **more)
        except RuntimeError:
            if not self.is_closed():
                raise
        return None
