"""sbatch launch/slurm.sbatch on a real SLURM: two tasks that find each other, are queued again, and end."""

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.run.commands import NARROW, ROOT, check_alike, run
from tests.run.slurm import missing, slurm

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "there is a SLURM")

FLAGS = (
    *("--config=configs/quickstart.py", *NARROW),
    *("--config.train.steps=150", "--config.train.log_every=5", "--config.mesh.cpu_devices=2"),
)


class Job:
    """A job of launch/slurm.sbatch, as a user sees it."""

    def __init__(self, environment: dict[str, str], workdir: Path, data_dir: Path, *flags: str):
        self.environment = environment | {"ALEXNET_DATA_DIR": str(data_dir), "PYTHON": sys.executable}
        self.workdir = workdir
        words = ["sbatch", "--parsable", f"--output={workdir}.log", "launch/slurm.sbatch"]
        self.number = self.ask(*words, *FLAGS, f"--workdir={workdir}", *flags).strip()

    def ask(self, *words: str) -> str:
        return subprocess.run(
            words, env=self.environment, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout

    def state(self) -> dict[str, str]:
        shown = self.ask("scontrol", "show", "job", self.number, "--oneliner")
        return dict(re.findall(r"(\w+)=(\S+)", shown))

    def log(self) -> str:
        path = self.workdir.with_name(f"{self.workdir.name}.log")
        return path.read_text() if path.exists() else ""

    def wait(self, holds: Callable[[], bool], seconds: int = 240) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, f"{self.state()}\n{self.log()}"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    with contextlib.ExitStack() as stack:
        try:
            environment = stack.enter_context(slurm())
        except RuntimeError as error:
            pytest.skip(f"a SLURM cannot be started here: {error}")
        yield environment


def test_from_sbatch_to_the_end(cluster: dict[str, str], tmp_path: Path, data_dir: Path) -> None:
    """With no flag that says who is who. Told to stop the tasks save, and the job is queued again; queued
    again by hand it goes on from its last checkpoint; and it ends where one process ends.
    """
    job = Job(cluster, tmp_path / "run", data_dir, "--config.checkpoint.every_steps=10")
    job.wait(lambda: "10/150  train" in job.log())
    job.ask("scancel", "--signal=TERM", job.number)
    job.wait(lambda: "has saved and is queued again" in job.log())
    job.wait(lambda: job.log().count("resuming at step") == 1)
    step = int(re.search(r"resuming at step (\d+) of 150", job.log())[1])
    job.wait(lambda: len(list((job.workdir / "checkpoints").glob("[0-9]*"))) and _last_step(job) > step + 10)
    job.ask("scontrol", "requeue", job.number)
    job.wait(lambda: job.state()["JobState"] in ("COMPLETED", "FAILED"))
    log = job.log()
    assert (job.state()["JobState"], job.state()["Restarts"]) == ("COMPLETED", "2"), log
    assert log.count(f"SLURM step {job.number}.0)") == 3
    assert "hosts  2 processes, process 0 at 127.0.0." in log
    assert "mesh   2 x 2 (data x tower), cpu" in log and "done   validation" in log
    straight = tmp_path / "straight"
    shape = ("--config.mesh.data=2", "--config.mesh.tower=2", "--config.mesh.cpu_devices=4")
    run("main", *FLAGS, *shape, f"--workdir={straight}", data_dir=data_dir)
    check_alike(job.workdir, straight)


def _last_step(job: Job) -> int:
    text = (job.workdir / "metrics.jsonl").read_text().splitlines()
    return json.loads(text[-1])["step"] if text else 0
