"""One of two processes stands still, is killed, or cannot write: what happens to both."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

from alexnet_jax.errors import BUG, COMPLETE, LOST
from tests.run.commands import NARROW, ROOT, STARTED

STUCK = 15
# The command, but for one process, which falls asleep at step 6.
SLEEPER = """
import sys, time
from alexnet_jax import main
from alexnet_jax.run import loop, processes

advance = loop.Run.advance

def fall_asleep(self, done, batch):
    if done == 6 and "--process_id=1" in sys.argv:
        time.sleep(1e6)
    advance(self, done, batch)

loop.Run.advance = fall_asleep
processes.run(main.main)
"""
# The command, but one process may write no file of more than 1000 bytes while step 10 is saved.
LIMITED = """
import resource, sys
from alexnet_jax import main
from alexnet_jax.run import checkpoint, loop, processes

checkpoint.PATIENCE = 10
save = loop.Run.save

def limited(self, done):
    if "--process_id=1" in sys.argv:
        most = 1000 if done == 10 else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    save(self, done)

loop.Run.save = limited
processes.run(main.main)
"""


def two(program: str, workdir: Path, data_dir: Path, *flags: str) -> list[subprocess.Popen]:
    """Two processes that are one run."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"--coordinator_address=localhost:{free.getsockname()[1]}"
    flags = ("--config=configs/quickstart.py", f"--workdir={workdir}", *NARROW, address, *flags)
    flags += ("--num_processes=2", "--config.mesh.cpu_devices=1")
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, *flags, f"--process_id={i}"],
            cwd=ROOT,
            env=os.environ | {"ALEXNET_DATA_DIR": str(data_dir)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    STARTED.extend(started)
    return started


def test_one_that_sleeps(data_dir: Path, tmp_path: Path) -> None:
    """It says where it stands, and ends with 1 soon after the limit; so does the other, who has lost it."""
    flags = ("--config.train.log_every=1", f"--config.limits.stuck={STUCK}")
    started = two(SLEEPER, tmp_path, data_dir, *flags)
    for line in started[0].stdout:
        if " 4/" in line:
            break
    began = time.monotonic()
    said = [process.communicate(timeout=100)[1] for process in started]
    assert STUCK - 5 < time.monotonic() - began < STUCK + 15
    assert [process.returncode for process in started] == [LOST, BUG], said
    assert "Timeout (0:00:15)!" in said[1]
    assert "in fall_asleep" in said[1]
    assert re.search(r"^error: another process is gone \(.+\); start all processes again$", said[0], re.M)
    assert "Traceback" not in said[0]


def test_one_that_is_killed(data_dir: Path, tmp_path: Path) -> None:
    """The other hears of it at once, or when a sign of life does not come."""
    command = "from alexnet_jax import main; from alexnet_jax.run import processes; processes.run(main.main)"
    started = two(command, tmp_path, data_dir, "--config.train.log_every=1", "--config.limits.heartbeat=10")
    for line in started[0].stdout:
        if " 4/" in line:
            break
    started[1].kill()
    began = time.monotonic()
    _, err = started[0].communicate(timeout=100)
    assert time.monotonic() - began < 20
    assert started[0].returncode == LOST, err
    assert re.search(r"^error: another process is gone \(.+\); start all processes again$", err, re.M)
    assert "Traceback" not in err


def test_one_that_cannot_write(data_dir: Path, tmp_path: Path) -> None:
    """All hear of it, go on, and save the next one."""
    flags = ("--config.train.steps=30", "--config.checkpoint.every_steps=11")
    started = two(LIMITED, tmp_path, data_dir, *flags)
    said = [process.communicate(timeout=200) for process in started]
    assert [process.returncode for process in started] == [COMPLETE, COMPLETE], said
    found = re.findall(r"^not saved: (.*)$", said[0][0], re.M)
    assert found == ["step 10 could not be saved: not every process has written its part within 10 s"]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["20", "30"]
