"""sbatch launch/slurm.sbatch on a real SLURM: two tasks that find each other, are queued again, and end."""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from configs import quickstart
from tests.commands.programs import train_here
from tests.commands.running import NARROW, ROOT, check_alike, narrow
from tests.commands.slurm import missing, slurm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=missing() or "there is a SLURM"),
]

FLAGS = (
    *("--config=configs/quickstart.py", *NARROW, "--config.checkpoint.every_steps=10"),
    *("--config.train.steps=60", "--config.train.log_every=5", "--config.mesh.cpu_devices=2"),
)
# In its first two starts the first task stands still until it is told what comes next.
PYTHON = """#!/bin/sh
case ${SLURM_RESTART_COUNT:-0} in
  0) word=0:step@12=STOP ;;
  1) word=0:step@40=STOP ;;
  *) exec "%(python)s" "$@" ;;
esac
exec "%(python)s" -m tests.commands.disturbed "$word" "$@"
"""


class Job:
    """A job of launch/slurm.sbatch, as a user sees it."""

    def __init__(self, environment: dict[str, str], workdir: Path, data_dir: Path):
        python = workdir.with_name("python")
        python.write_text(PYTHON % {"python": sys.executable})
        python.chmod(0o755)
        self.environment = environment | {"ALEXNET_DATA_DIR": str(data_dir), "PYTHON": str(python)}
        self.workdir = workdir
        words = ["sbatch", "--parsable", f"--output={workdir}.log", "launch/slurm.sbatch"]
        self.number = self.ask(*words, *FLAGS, f"--workdir={workdir}").strip()

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

    def wait(self, holds: Callable[[], bool], meanwhile: Callable[[], object] = lambda: None) -> None:
        """SLURM tells nobody what becomes of a job: it is asked, now and then."""
        end = time.monotonic() + 600
        while not holds():
            assert time.monotonic() < end, f"{self.state()}\n{self.log()}"
            meanwhile()
            time.sleep(0.5)

    def signal(self, name: str) -> None:
        """Signals all tasks; SLURM complains where none runs at the moment."""
        words = ["scancel", f"--signal={name}", self.number]
        subprocess.run(words, env=self.environment, capture_output=True, check=False)


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    with contextlib.ExitStack() as stack:
        try:
            environment = stack.enter_context(slurm())
        except RuntimeError as error:
            pytest.skip(f"a SLURM cannot be started here: {error}")
        yield environment


def test_from_sbatch_to_the_end(cluster: dict[str, str], tmp_path: Path, data_dir: Path) -> None:
    """No flag says who is who. Told to stop the tasks save, and the job is queued again; queued
    again by hand it goes on from its last checkpoint; and it ends where one process ends.
    """
    job = Job(cluster, tmp_path / "run", data_dir)
    job.wait(lambda: "10/60  train" in job.log())
    job.signal("TERM")
    job.wait(lambda: "has saved and is queued again" in job.log(), lambda: job.signal("CONT"))
    job.wait(lambda: "35/60  train" in job.log())
    job.ask("scontrol", "requeue", job.number)
    job.wait(lambda: job.state()["JobState"] in ("COMPLETED", "FAILED"))
    log = job.log()
    assert (job.state()["JobState"], job.state()["Restarts"]) == ("COMPLETED", "2"), log
    assert log.count("resuming at step") == 2
    assert log.count("hosts  2 processes, process 0 at 127.0.0.") == 3
    assert "mesh   2 x 2 (data x tower), cpu" in log and "done   validation" in log
    straight = tmp_path / "straight"
    sections = {"train": {"log_every": 5}, "checkpoint": {"every_steps": 10}}
    train_here(narrow(quickstart.get_config(), data_dir, 60, **sections), straight, 2, 2)
    check_alike(job.workdir, straight)
