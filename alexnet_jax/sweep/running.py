"""Runs the jobs of a sweep one after another, each in a process of its own, so that one harms no other."""

import contextlib
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import IO

from tqdm import tqdm

from alexnet_jax.data.packed import find_packed
from alexnet_jax.errors import (
    CONFIG,
    DIVERGED,
    PREEMPTED,
    STOPPED,
    ConfigError,
    Interrupted,
    RefusedError,
)
from alexnet_jax.signals import Guard
from alexnet_jax.sweep.jobs import DIVERGED_TXT, SweepRun, outcome
from alexnet_jax.sweep.table import Outcome

LOG = "log.txt"
PAUSE = 0.2  # seconds between looks at a run


def run_all(jobs: Sequence[SweepRun]) -> int:
    """Runs what has not ended yet; how many runs failed for reasons of their own."""
    waiting = [job for job in jobs if outcome(job) is None]
    failed = 0
    report = SweepReport(jobs, len(jobs) - len(waiting))
    with Guard() as guard, contextlib.closing(report):
        for job in waiting:
            if guard.poll():
                raise Interrupted(report.stopped())
            report.begin(job)
            code, words = _run(job, guard, report)
            if code == DIVERGED:
                (job.workdir.path / DIVERGED_TXT).write_text(words + "\n")
            if ended := outcome(job):
                report.ended += 1
                report.end(job, _describe(ended))
            elif guard.poll() or code in (PREEMPTED, STOPPED):
                raise Interrupted(report.stopped())
            elif code == CONFIG:
                raise ConfigError(f"{job.name}: {words}")
            else:
                failed += 1
                report.end(job, f"FAILED, {words} ({job.workdir.path / LOG})")
    return failed


def _run(job: SweepRun, guard: Guard, report: "SweepReport") -> tuple[int, str]:
    """Runs a job to its end, or until it has saved: its exit code, and the last line that it printed."""
    # A job of a sweep is one process, wherever the sweep was started.
    alone = ["--distributed=off", f"--workdir={job.workdir.path}"]
    command = [sys.executable, "-m", "alexnet_jax.main", *job.flags, *alone]
    with _log(job) as log:
        log.write(f"$ {shlex.join(command)}\n".encode())
        begins = log.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},  # what it complains of comes last
        )
        asked = False
        try:
            while process.poll() is None:
                if guard.poll() and not asked:
                    # Ctrl-C on a terminal reaches it too, and a second would end it unsaved: TERM does not.
                    process.terminate()
                    asked = True
                report.look(job)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(PAUSE)
        finally:  # no run goes on alone
            process.terminate()
            process.wait()
    lines = (job.workdir.path / LOG).read_bytes()[begins:].decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
    if process.returncode < 0:
        last = (
            f"ended by {signal.strsignal(-process.returncode)} (signal {-process.returncode}) after: {last}"
        )
    return process.returncode, last.removeprefix("error: ")


@contextlib.contextmanager
def _log(job: SweepRun) -> Iterator[IO[bytes]]:
    """Opens the log of a run. Its process holds the lock too: if this one is killed, no other can begin."""
    with (job.workdir.path / LOG).open("ab", buffering=0) as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RefusedError(
                f"{job.name}: another process is at it, and writes {job.workdir.path / LOG}; "
                "wait until it has ended, or end it"
            ) from error
        except OSError:  # a file system without locks
            pass
        yield log


class SweepReport:
    """Tells how a sweep is doing: a bar on a terminal, and a line for every run."""

    def __init__(self, jobs: Sequence[SweepRun], done: int):
        self.total, self.done, self.ended, self._first = len(jobs), done, done, done
        self._width = max((len(job.name) for job in jobs), default=0)
        self._sweep_began = self._began = self._looked = time.monotonic()
        self._bar = tqdm(
            total=self.total,
            initial=done,
            leave=False,
            dynamic_ncols=True,
            smoothing=0,
            bar_format="{desc} |{bar}| {n:.1f} of {total} runs, {elapsed}, {remaining} left",
            disable=not sys.stderr.isatty(),
        )

    def begin(self, job: SweepRun) -> None:
        self._began = time.monotonic()
        if self._bar.disable:
            self._say(job, "started")
        self._bar.set_description_str(f"{job.name:<{self._width}}")

    def look(self, job: SweepRun) -> None:
        """Moves the bar as far as a run has come, once a second."""
        if self._bar.disable or time.monotonic() - self._looked < 1:
            return
        self._looked = time.monotonic()
        with contextlib.suppress(RefusedError):  # the run itself says so, and better
            if lines := job.workdir.metrics():  # its data is packed, then
                pictures = find_packed(job.config.data).facts["splits"]["train"]["pictures"]
                self._bar.n = self.done + min(1, lines[-1]["step"] / job.config.train.length(pictures))
        self._bar.refresh()

    def end(self, job: SweepRun, words: str) -> None:
        now = time.monotonic()
        taken = tqdm.format_interval(now - self._began)
        done = self.done + 1
        left = (now - self._sweep_began) / (done - self._first) * (self.total - done)
        self._say(job, f"{words}  in {taken}, {tqdm.format_interval(left)} left")
        self.done = self._bar.n = done
        self._bar.refresh()

    def stopped(self) -> str:
        return f"stopped, {self.ended} of {self.total} runs are done; the same command goes on"

    def close(self) -> None:
        self._bar.close()

    def _say(self, job: SweepRun, words: str) -> None:
        number = f"{self.done + 1:>{len(str(self.total))}}/{self.total}"
        tqdm.write(f"{number}  {job.name:<{self._width}}  {words}", file=sys.stdout)
        sys.stdout.flush()


def _describe(ended: Outcome) -> str:
    if ended.top1_error is None:
        return "diverged"
    return f"top-1 error {100 * ended.top1_error:.1f} %  top-5 error {100 * ended.top5_error:.1f} %"
