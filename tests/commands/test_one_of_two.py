"""One of two processes stands still, is killed, or cannot write: what happens to both."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_jax.errors import BUG, COMPLETE, LOST
from tests.commands.running import NARROW, ROOT, STARTED

pytestmark = pytest.mark.slow

# The command, but one process may write no file of more than 1000 bytes while step 10 is saved.
LIMITED = """
import resource, sys
from alexnet_jax import main
from alexnet_jax.storage import checkpoint
from alexnet_jax import cli

checkpoint.BARRIER_TIMEOUT = 10
save = checkpoint.Checkpoints.save

def limited(self, step, *given):
    if "--process_id=1" in sys.argv:
        most = 1000 if step == 10 else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    save(self, step, *given)

checkpoint.Checkpoints.save = limited
cli.run(main.main)
"""
GONE = r"^error: another process is gone \(.+\); start all processes again$"


def two(program: tuple[str, ...], workdir: Path, data_dir: Path, *flags: str) -> tuple[list[int], list[str]]:
    """Two processes that are one run: their exit codes, and what they printed and complained of."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"--coordinator_address=localhost:{free.getsockname()[1]}"
    flags = ("--config=configs/quickstart.py", f"--workdir={workdir}", *NARROW, address, *flags)
    flags += ("--num_processes=2", "--config.mesh.cpu_devices=1", f"--config.data.dir={data_dir}")
    started = [
        subprocess.Popen(
            [sys.executable, *program, *flags, f"--process_id={i}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    STARTED.extend(started)
    said = [process.communicate(timeout=300)[0] for process in started]
    return [process.returncode for process in started], said


def disturbed(word: str) -> tuple[str, ...]:
    return ("-m", "tests.commands.disturbed", word, "-m", "alexnet_jax.main")


def test_one_that_sleeps(data_dir: Path, tmp_path: Path) -> None:
    """It says where it stands, and ends with 1 after the limit; so does the other, who has lost it."""
    codes, said = two(disturbed("1:step@6=SLEEP"), tmp_path, data_dir, "--config.limits.stuck=15")
    assert codes == [LOST, BUG], said
    assert "Timeout (0:00:15)!" in said[1]
    assert "in strike" in said[1]
    assert re.search(GONE, said[0], re.MULTILINE)
    assert "Traceback" not in said[0]


def test_one_that_is_killed(data_dir: Path, tmp_path: Path) -> None:
    """The other hears of it at once, or when a sign of life does not come."""
    codes, said = two(disturbed("1:step@6=KILL"), tmp_path, data_dir, "--config.limits.heartbeat=10")
    assert codes == [LOST, -9], said
    assert re.search(GONE, said[0], re.MULTILINE)
    assert "Traceback" not in said[0]


def test_one_that_cannot_write(data_dir: Path, tmp_path: Path) -> None:
    """All hear of it, go on, and save the next one."""
    flags = ("--config.train.steps=30", "--config.checkpoint.every_steps=11")
    codes, said = two(("-c", LIMITED), tmp_path, data_dir, *flags)
    assert codes == [COMPLETE, COMPLETE], said
    found = re.findall(r"^not saved: (.*)$", said[0], re.M)
    assert len(found) == 1 and found[0].startswith("step 10 could not be saved: ")
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["20", "30"]
