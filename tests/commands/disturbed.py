"""Runs a command that disturbs itself at moments which are named: from within, where none is missed.

    python -m tests.commands.disturbed saving@24=KILL 1:step@30=TERM+0.1 -m alexnet_jax.main --config=...

Each word is [PROCESS:]STAGE[@STEP]=SIGNAL[+SECONDS]. The stages are

    starting      before anything is compared with other processes, or refused
    compiling     the first step of this start is about to be compiled
    step          a step is about to begin
    saving        the writing of a checkpoint has begun, and cannot end before the signal is sent
    evaluating    the third batch of an evaluation is done

and the moment is the first of its stage from STEP on. With SECONDS another thread sends the signal so much
later, wherever the run is then. SLEEP is no signal: the run stands still.
"""

import contextlib
import itertools
import os
import re
import runpy
import shlex
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

STAGES = ("starting", "compiling", "step", "saving", "evaluating")
LAUNCHER = "import runpy, sys; sys.executable = sys.argv.pop(1); "
LAUNCHER += "sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"


@dataclass(frozen=True)
class Disturbance:
    """The kind of a disturbance, and its moment."""

    stage: str
    signal: str
    step: int = 0
    process: int | None = None  # of several; None: any
    delay: float = 0.0

    @classmethod
    def read(cls, word: str) -> "Disturbance":
        pattern = rf"(?:(\d+):)?({'|'.join(STAGES)})(?:@(\d+))?=([A-Z]+)(?:\+([\d.]+))?"
        process, stage, step, name, delay = re.fullmatch(pattern, word).groups()
        return cls(stage, name, int(step or 0), int(process) if process else None, float(delay or 0))

    def __str__(self) -> str:
        process = "" if self.process is None else f"{self.process}:"
        delay = f"+{self.delay:.3f}" if self.delay else ""
        return f"{process}{self.stage}@{self.step}={self.signal}{delay}"


@dataclass
class Disturber:
    """Waits for the moments, and says on stdout what it does then."""

    left: list[Disturbance]
    process: int = 0
    reached: int = 0  # the newest step that has begun
    committing: threading.Lock = field(default_factory=threading.Lock)  # held: no checkpoint gets its name

    def come(self, stage: str, step: int = 0) -> None:
        """A moment: what waits for it happens now, or is on its way."""
        for one in list(self.left):
            if one.stage == stage and one.step <= step and one.process in (None, self.process):
                self.left.remove(one)
                if one.delay:
                    timer = threading.Timer(one.delay, self.strike, [one])
                    timer.daemon = True
                    timer.start()
                else:
                    self.strike(one)

    def strike(self, one: Disturbance) -> None:
        print(f"disturbed: {one}, after step {self.reached}", flush=True)
        if one.signal == "SLEEP":
            time.sleep(1e6)
        else:
            os.kill(os.getpid(), signal.Signals[f"SIG{one.signal}"])

    def starting(self, preflight: Callable) -> Callable:
        def patched(*given: Any) -> Any:
            from alexnet_jax.cluster.joining import cluster_state

            self.process = cluster_state().process_id
            self.come("starting")
            return preflight(*given)

        return patched

    def start_step(self, start_step: Callable) -> Callable:
        def patched(training: Any, done: int, *given: Any) -> None:
            if done == training.first + 1:
                self.come("compiling")
            self.come("step", done)
            self.reached = done
            start_step(training, done, *given)

        return patched

    def save(self, save: Callable) -> Callable:
        def patched(checkpoints: Any, step: int, *given: Any) -> None:
            with self.committing:
                save(checkpoints, step, *given)
                self.come("saving", step)

        return patched

    def commit(self, commit: Callable) -> Callable:
        async def patched(*given: Any, **named: Any) -> None:
            with self.committing:
                pass
            await commit(*given, **named)

        return patched

    def evaluate(self, evaluate: Callable) -> Callable:
        def patched(evaluator: Any, state: Any, tell: Callable[[int], None] = lambda _: None) -> Any:
            batches = itertools.count(1)

            def look(images: int) -> None:
                if next(batches) == 3:
                    self.come("evaluating", int(state.step))
                tell(images)

            return evaluate(evaluator, state, look)

        return patched


@contextlib.contextmanager
def disturbed(*words: str) -> Iterator[None]:
    """Runs within this process are disturbed."""
    from alexnet_jax.cluster import preflight

    disturber = Disturber([Disturbance.read(word) for word in words])
    with contextlib.ExitStack() as stack:

        def patch(holder: Any, name: str, around: Callable[[Callable], Callable]) -> None:
            stack.enter_context(mock.patch.object(holder, name, around(getattr(holder, name))))

        patch(preflight, "preflight", disturber.starting)
        if any(one.stage != "starting" for one in disturber.left):
            # Not before: it takes seconds, in which a command that is stopped early has ended.
            from orbax.checkpoint._src.path import atomicity

            from alexnet_jax.storage import checkpoint
            from alexnet_jax.training import evaluation, loop

            patch(loop.Training, "start_step", disturber.start_step)
            patch(checkpoint.Checkpoints, "save", disturber.save)
            patch(atomicity, "on_commit_callback", disturber.commit)
            patch(evaluation.Evaluator, "__call__", disturber.evaluate)
        yield


def python(folder: Path, *words: str, first: str = "") -> Path:
    """An interpreter, for launchers, that disturbs what it runs with -m; `first` a shell does before."""
    path = folder / "python"
    command = shlex.join([sys.executable, "-u", "-m", "tests.commands.disturbed", *words])
    path.write_text(f'#!/bin/sh\n{first}\nexec {command} "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def launcher(python: Path, processes: int, *flags: str) -> list[str]:
    """launch/processes.py N FLAGS, whose processes are of another interpreter."""
    return [sys.executable, "-u", "-c", LAUNCHER, str(python), "launch/processes.py", str(processes), *flags]


def wait_until_stopped(process: subprocess.Popen, seconds: float = 300) -> None:
    """By STOP."""
    late = threading.Timer(seconds, process.kill)
    late.start()
    found = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    late.cancel()
    assert found.si_code == os.CLD_STOPPED, process.communicate()


def main() -> None:
    at = sys.argv.index("-m")
    words, (module, *flags) = sys.argv[1:at], sys.argv[at + 1 :]
    sys.argv = [module, *flags]
    with disturbed(*words):
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
