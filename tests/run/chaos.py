"""Disturbs a run at random moments until it has ended, and compares it with one that nobody disturbed.

    python -m tests.run.chaos --disturbances=25 --seed=0
    python -m tests.run.chaos --disturbances=10 --processes=2

What it does is drawn from the seed: it kills with -9, asks by TERM or by Ctrl-C for an end, flips a bit of
the newest checkpoint, lets no file grow beyond a size, as a full disk does. A third of the moments come while
a start has not come far; of the others a third while a checkpoint is being written, a third in an evaluation.
In the end parameters, velocity, everything else that is saved, and every line of metrics.jsonl but for the
clock's must be those of the undisturbed run; and no start may have lost more steps than the config says.
"""

import argparse
import collections
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import jax
from absl import logging

from alexnet_jax.errors import COMPLETE, LOST, PREEMPTED, REFUSED, STOPPED
from tests.run.commands import NARROW, ROOT, STARTED, lines
from tests.run.test_resume import saved

EVERY, EVALUATED = 28, 50  # steps that may be lost, and between evaluations
FLAGS = (
    "--config=configs/quickstart.py",
    *NARROW,
    "--config.train.log_every=5",
    "--config.evaluation.every_epochs=0.2",
    "--config.evaluation.batch_size=50",
    f"--config.checkpoint.every_steps={EVERY}",
)
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "ctrl-c": signal.SIGINT}
SIGNALS |= {"flip": signal.SIGKILL, "full": signal.SIGKILL}
DEAD = {-signal.SIGKILL, 128 + signal.SIGKILL, LOST}  # itself, by the launcher's word, or another did
ENDS = {
    "kill": DEAD,
    "flip": DEAD,
    "full": {*DEAD, REFUSED},
    "term": {PREEMPTED},
    "ctrl-c": {PREEMPTED, STOPPED},
}
PATIENCE = 300  # seconds until a run must have ended by itself, or by what it was told


@dataclass(frozen=True)
class Plan:
    """What is to be done to a run."""

    disturbances: int
    seed: int = 0
    kinds: str = "kill"
    processes: int = 1
    steps: int = 1200
    data_dir: Path | None = None


@dataclass
class Start:
    """One start of the run, and what it said."""

    process: subprocess.Popen
    said: list[str] = field(default_factory=list)

    def listen(self) -> None:
        with self.process.stdout:
            for line in self.process.stdout:
                self.said.append(line)

    @property
    def resumed(self) -> int | None:
        """The step that it went on from, once it has said so."""
        for line in self.said:
            if found := re.search(r"run    (?:resuming at step (\d+) of)?", line):
                return int(found[1] or 0)
        return None

    def stage(self, workdir: Path) -> str:
        """What it is doing, roughly."""
        if self.resumed is None:
            return "starting"
        if any(workdir.glob("checkpoints/*tmp*")):
            return "saving"
        reached, split = newest_line(workdir)
        if split == "train" and reached % EVALUATED == 0:
            return "evaluating"
        return "training" if reached > self.resumed else "compiling, first steps"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--disturbances", type=int, default=25)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--kinds", default=Plan.kinds, help=f"some of {', '.join(SIGNALS)}")
    parser.add_argument("--processes", type=int, default=Plan.processes)
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument("--data_dir", type=Path, default=Plan.data_dir)
    plan = Plan(**vars(parser.parse_args()))
    jax.config.update("jax_num_cpu_devices", 8)  # as many as a checkpoint may be of
    logging.set_verbosity(logging.FATAL)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        problems = disturb(Path(folder), plan)
    for problem in problems:
        print(f"WRONG: {problem}")
    sys.exit(bool(problems))


def disturb(folder: Path, plan: Plan) -> list[str]:
    """What was found wrong."""
    rng, problems, stages, lost = random.Random(plan.seed), [], collections.Counter(), [0]
    whole, parts = folder / "whole", folder / "parts"
    began = time.monotonic()
    run = start(plan, whole)
    while run.process.poll() is None and not newest_line(whole)[0]:
        time.sleep(0.1)
    ready = time.monotonic() - began
    finish(run)
    took = time.monotonic() - began
    print(f"undisturbed: {took:.0f} s, of which {ready:.0f} to the first line", flush=True)
    for number in range(1, plan.disturbances + 1):
        kind = rng.choice(plan.kinds.split())
        run = start(plan, parts, rng.randrange(5000, 50000) if kind == "full" else resource.RLIM_INFINITY)
        wait_for_moment(rng, run, parts, ready, plan.steps / plan.disturbances)
        stage, (reached, _) = run.stage(parts), newest_line(parts)
        stages[stage] += 1
        stop(rng, run, SIGNALS[kind], plan.processes)
        if (code := run.process.wait(PATIENCE)) == COMPLETE:
            problems.append(f"it had ended before disturbance {number}")
            break
        newest = max(steps(parts), default=0)
        which = f"{number:>3}/{plan.disturbances}  {kind:<6}"
        words = f"{which} while {stage}, after step {reached}: exit code {code}"
        print(f"{words}, checkpoint {newest}", flush=True)
        if code not in ENDS[kind]:
            problems.append(f"{words}: {''.join(run.said[-9:])}")
        # Before it resumes, what is in the log is of the start before.
        lost.append(reached - newest if run.resumed is not None else 0)
        if kind != "full" and lost[-1] > EVERY:
            problems.append(f"{words}: {lost[-1]} steps are lost, of at most {EVERY}")
        if kind == "flip" and newest:
            print(f"       {flip(rng, parts / 'checkpoints' / str(newest))}", flush=True)
    finish(start(plan, parts))
    print(f"disturbed while {dict(stages)}; at most {max(lost)} steps lost at once", flush=True)
    return problems + differences(whole, parts)


def start(plan: Plan, workdir: Path, largest: int = resource.RLIM_INFINITY) -> Start:
    """With a limit in bytes to the size of any file."""
    flags = [*FLAGS, f"--config.train.steps={plan.steps}", f"--workdir={workdir}"]
    command = ["-m", "alexnet_jax.main", *flags]
    if plan.processes > 1:
        launcher = str(ROOT / "launch" / "processes.py")
        command = [launcher, str(plan.processes), *flags, "--config.mesh.cpu_devices=1"]
    run = Start(
        subprocess.Popen(
            [sys.executable, "-u", *command],
            cwd=ROOT,
            env=os.environ | ({"ALEXNET_DATA_DIR": str(plan.data_dir)} if plan.data_dir else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    )
    resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (largest, largest))
    STARTED.append(run.process)
    threading.Thread(target=run.listen, daemon=True).start()
    return run


def finish(run: Start) -> None:
    """To its end."""
    code = run.process.wait(PATIENCE)
    assert code == COMPLETE, f"exit code {code}: {''.join(run.said[-5:])}"


def wait_for_moment(rng: random.Random, run: Start, workdir: Path, ready: float, ahead: float) -> None:
    """Before a start has come far, or in some stage after that."""
    early, pause = rng.random() < 1 / 3, rng.uniform(0, 0.1)
    wanted = rng.choice(("saving", "evaluating", None))
    deadline = time.monotonic() + (rng.uniform(0, ready) if early else PATIENCE)
    goal = None
    while run.process.poll() is None and time.monotonic() < deadline:
        if goal is None and run.resumed is not None:
            goal = run.resumed + rng.uniform(1, ahead)
        far = not early and goal is not None and newest_line(workdir)[0] >= goal
        if far and wanted in (None, run.stage(workdir)):
            time.sleep(pause)
            return
        time.sleep(0.002)


def stop(rng: random.Random, run: Start, number: signal.Signals, processes: int) -> None:
    """Disturbs the process, or one of them."""
    if processes == 1:
        run.process.send_signal(number)
        return
    found = subprocess.run(["pgrep", "-P", str(run.process.pid)], capture_output=True, text=True, check=False)
    if children := found.stdout.split():
        os.kill(int(rng.choice(children)), number)


def steps(workdir: Path) -> list[int]:
    return [int(path.name) for path in workdir.glob("checkpoints/[0-9]*") if path.name.isdecimal()]


def newest_line(workdir: Path) -> tuple[int, str]:
    """The last step in the log, and what of it."""
    log = workdir / "metrics.jsonl"
    text = log.read_text() if log.exists() else ""
    found = re.findall(r'^\{"step": (\d+), "split": "(\w+)"', text, re.MULTILINE)
    return (int(found[-1][0]), found[-1][1]) if found else (0, "")


def flip(rng: random.Random, folder: Path) -> str:
    """One bit of one file of a checkpoint."""
    file = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size))
    content = bytearray(file.read_bytes())
    bit = rng.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    return f"bit {bit} of {file.relative_to(folder.parent)} is flipped"


def differences(whole: Path, parts: Path) -> list[str]:
    """Where two runs that have ended are not the same."""
    found, wanted = lines(parts), lines(whole)
    problems = [f"line {a} instead of {b}" for a, b in zip(found, wanted, strict=False) if a != b][:3]
    if len(found) != len(wanted):
        problems.append(f"{len(found)} lines instead of {len(wanted)}")
    end = max(steps(whole))
    ours, theirs = saved(parts, end), saved(whole, end)
    return problems + [f"{name} differs" for name, x in theirs.items() if ours[name].tobytes() != x.tobytes()]


if __name__ == "__main__":
    main()
