"""Disturbs a run at random moments until it has ended, and compares it with one that nobody disturbed.

    python -m tests.commands.chaos --disturbances=25 --seed=0
    python -m tests.commands.chaos --disturbances=10 --processes=2

What it does is drawn from the seed: it kills with -9, asks by TERM or by Ctrl-C for an end, flips a bit of
the newest checkpoint, lets no file grow beyond a size, as a full disk does. A third of the moments come while
a start has not come far; the others while a checkpoint is being written, in an evaluation, or at any step.
Each start disturbs itself, at a moment that it cannot miss or somewhat later, so that no machine is too slow.
In the end parameters, velocity, everything else that is saved, and every line of metrics.jsonl but for the
clock's must be those of the undisturbed run; and no start may have lost more steps than the config says.
"""

import argparse
import collections
import os
import random
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

# As the commands do, before anything imports TensorFlow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import jax
from absl import logging

from alexnet_jax.errors import COMPLETE, LOST, PREEMPTED, REFUSED, STOPPED
from tests.commands.disturbed import Disturbance, launcher, python
from tests.commands.running import NARROW, ROOT, STARTED, end, lines
from tests.commands.test_resume import saved

EVERY, EVALUATED = 28, 50  # steps that may be lost, and between evaluations
FLAGS = (
    "--config=configs/quickstart.py",
    *NARROW,
    "--config.train.log_every=5",
    "--config.evaluation.every_epochs=0.2",
    "--config.evaluation.batch_size=50",
    f"--config.checkpoint.every_steps={EVERY}",
)
SIGNALS = {"kill": "KILL", "term": "TERM", "ctrl-c": "INT", "flip": "KILL", "full": "KILL"}
DEAD = {-9, 128 + 9, LOST}  # itself, by the launcher's word, or another did
ENDS = {
    "kill": DEAD,
    "flip": DEAD,
    "full": {*DEAD, REFUSED},
    "term": {PREEMPTED},
    "ctrl-c": {PREEMPTED, STOPPED},
}
PATIENCE = 600  # seconds until a run must have ended by itself, or by what it was told


@dataclass(frozen=True)
class Plan:
    """The disturbances of a run."""

    disturbances: int
    seed: int = 0
    kinds: str = "kill"
    processes: int = 1
    steps: int = 1200
    data_dir: Path | None = None


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
    """Disturbs a run to its end; returns the faults found."""
    rng, problems, stages, most = random.Random(plan.seed), [], collections.Counter(), 0
    whole, parts = folder / "whole", folder / "parts"
    finish(plan, whole)
    for number in range(1, plan.disturbances + 1):
        kind = rng.choice(plan.kinds.split())
        one = draw(rng, plan, SIGNALS[kind], max(steps(parts), default=0))
        code, said = start(plan, parts, str(one), rng.randrange(10, 100) if kind == "full" else None)
        newest = max(steps(parts), default=0)
        found = re.search(r"disturbed: .*, after step (\d+)", said)
        reached = int(found[1]) if found else 0
        words = f"{number:>3}/{plan.disturbances}  {kind:<6} {one}, after step {reached}: exit code {code}"
        print(f"{words}, checkpoint {newest}", flush=True)
        if code == COMPLETE:  # a signal that came later than the end
            break
        stages[one.stage] += 1
        if code not in ENDS[kind]:
            problems.append(f"{words}: {said[-2000:]}")
        lost = reached - newest if reached and kind != "full" else 0
        most = max(most, lost)
        if lost > EVERY:
            problems.append(f"{words}: {lost} steps are lost, of at most {EVERY}")
        if kind == "flip" and newest:
            print(f"       {flip(rng, parts / 'checkpoints' / str(newest))}", flush=True)
    finish(plan, parts)
    print(f"disturbed while {dict(stages)}; at most {most} steps lost at once", flush=True)
    return problems + differences(whole, parts)


def draw(rng: random.Random, plan: Plan, name: str, saved_last: int) -> Disturbance:
    """Before a start has come far, or in some stage after that."""
    process = rng.randrange(plan.processes)
    if rng.random() < 1 / 3:
        stage, longest = rng.choice((("starting", 3.0), ("compiling", 1.0)))
        return Disturbance(stage, name, 0, process, rng.uniform(0, longest))
    stage = rng.choice(("saving", "evaluating", "step"))
    step = saved_last + rng.randint(1, max(1, plan.steps // plan.disturbances))
    delay = rng.choice((0.0, rng.uniform(0, 0.05)))
    return Disturbance(stage, name, min(step, plan.steps), process, delay)


def start(plan: Plan, workdir: Path, word: str = "", largest: int | None = None) -> tuple[int, str]:
    """Starts the run, in which no file may be larger than so many blocks: its exit code, and what it said."""
    workdir.mkdir(exist_ok=True)
    limit = f"ulimit -f {largest}" if largest else ""
    interpreter = python(workdir.parent, *filter(None, [word]), first=limit)
    flags = [*FLAGS, f"--config.train.steps={plan.steps}", f"--workdir={workdir}"]
    command = [str(interpreter), "-m", "alexnet_jax.main", *flags]
    if plan.processes > 1:
        command = launcher(interpreter, plan.processes, *flags, "--config.mesh.cpu_devices=1")
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | ({"ALEXNET_DATA_DIR": str(plan.data_dir)} if plan.data_dir else {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    STARTED.append(process)
    try:
        said, _ = process.communicate(timeout=PATIENCE)
    finally:
        end(process)
    return process.returncode, said


def finish(plan: Plan, workdir: Path) -> None:
    """Runs to the end."""
    code, said = start(plan, workdir)
    assert code == COMPLETE, f"exit code {code}: {said[-2000:]}"


def steps(workdir: Path) -> list[int]:
    return [int(path.name) for path in workdir.glob("checkpoints/[0-9]*") if path.name.isdecimal()]


def flip(rng: random.Random, folder: Path) -> str:
    """One bit of one file of a checkpoint."""
    file = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size))
    content = bytearray(file.read_bytes())
    bit = rng.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    return f"bit {bit} of {file.relative_to(folder.parent)} is flipped"


def differences(whole: Path, parts: Path) -> list[str]:
    """The differences between two runs that have ended."""
    found, wanted = lines(parts), lines(whole)
    problems = [f"line {a} instead of {b}" for a, b in zip(found, wanted, strict=False) if a != b][:3]
    if len(found) != len(wanted):
        problems.append(f"{len(found)} lines instead of {len(wanted)}")
    end = max(steps(whole))
    ours, theirs = saved(parts, end), saved(whole, end)
    return problems + [f"{name} differs" for name, x in theirs.items() if ours[name].tobytes() != x.tobytes()]


if __name__ == "__main__":
    main()
