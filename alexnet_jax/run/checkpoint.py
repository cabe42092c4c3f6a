"""Checkpoints of everything that a run has learnt, saved while it goes on."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from alexnet_jax.errors import RefusedError
from alexnet_jax.run.cluster import agreed


class Checkpoints:
    """`STEP/` folders below a path; the newest is where a run resumes."""

    def __init__(self, path: Path, keep: int | None = None):
        """Opens the folder; to write, `keep` says how many of the newest stay, and old leftovers go."""
        self.path = path
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=keep is not None,
            cleanup_tmp_directories=keep is not None,
            read_only=keep is None,
        )
        self._manager = ocp.CheckpointManager(path, options=options)

    def latest(self) -> int | None:
        step = self._manager.latest_step()
        step = agreed(-1 if step is None else step)
        return None if step < 0 else step

    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def choose(self, step: int | None) -> int:
        """The step that is asked for, or else the newest, if it was saved."""
        there = self.steps()
        if not there:
            raise RefusedError(f"{self.path.parent} has no checkpoint yet")
        if step is not None and step not in there:
            listed = ", ".join(map(str, there))
            raise RefusedError(f"{self.path.parent} has no checkpoint of step {step}; it has {listed}")
        return there[-1] if step is None else step

    def save(self, step: int, arrays: Any, progress: dict[str, Any]) -> None:
        """Starts writing `arrays`, any tree, and `progress`, plain values; the caller may go on at once."""
        if step in self._manager.all_steps():
            return
        items = ocp.args.Composite(arrays=ocp.args.StandardSave(arrays), progress=ocp.args.JsonSave(progress))
        self._manager.save(step, args=items, force=True)

    def restore(self, step: int, abstract: Any) -> tuple[Any, dict[str, Any]]:
        """What was saved at a step, placed as `abstract` says, on whatever mesh that is."""
        items = ocp.args.Composite(arrays=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore())
        try:
            with _tidy_loops():
                found = self._manager.restore(step, args=items)
        except Exception as error:  # among them bare ones, for files that are cut off
            reason = (str(error) or type(error).__name__).splitlines()[0]
            advice = "delete it to go on from the one before"
            raise RefusedError(f"cannot restore {self.path / str(step)} ({reason:.100}): {advice}") from error
        return found.arrays, found.progress

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


class _TidyLoop(asyncio.SelectorEventLoop):
    """Ends what is under way before it closes."""

    def close(self) -> None:
        left = () if self.is_closed() else asyncio.all_tasks(self)
        for task in left:
            task.cancel()
        if left:
            self.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        super().close()


@contextlib.contextmanager
def _tidy_loops() -> Iterator[None]:
    """Where a read fails Orbax closes its loop on the others, which complain one by one when they end."""
    usual, asyncio.new_event_loop = asyncio.new_event_loop, _TidyLoop
    try:
        yield
    finally:
        asyncio.new_event_loop = usual
