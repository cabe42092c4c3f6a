"""launch/mpi.sh with a real Open MPI: two ranks that find each other, and are told to stop."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alexnet_jax.errors import PREEMPTED
from tests.run.commands import NARROW, ROOT

ROOTS = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
FLAGS = (
    *("--config=configs/quickstart.py", *NARROW, "--config.mesh.data=1", "--config.mesh.tower=2"),
    *("--config.train.steps=2000", "--config.train.log_every=5"),
)


@pytest.fixture(autouse=True)
def _open_mpi() -> None:
    """Skips where none is installed, or it cannot start anything."""
    if shutil.which("mpirun") is None:
        pytest.skip("no mpirun: apt-get install openmpi-bin")
    words = ["mpirun", "-np", "1", "true"]
    tried = subprocess.run(words, env=os.environ | ROOTS, capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"mpirun starts nothing here: {tried.stderr.strip()[:200]}")


def start(workdir: Path, data_dir: Path) -> subprocess.Popen:
    with socket.socket() as free:  # not the script's own, which another test might have
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = ROOTS | {"OMPI_MCA_odls_base_sigkill_timeout": "5", "JAX_COORDINATOR_ADDRESS": address}
    environment |= {"ALEXNET_DATA_DIR": str(data_dir), "PYTHON": sys.executable}
    words = [str(ROOT / "launch" / "mpi.sh"), "-np", "2", "--oversubscribe", "--", *FLAGS]
    return subprocess.Popen(
        [*words, "--config.mesh.cpu_devices=1", f"--workdir={workdir}"],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_two_ranks(tmp_path: Path, data_dir: Path) -> None:
    """One of them is told: both save, and mpirun says 42."""
    workdir = tmp_path / "ranks"
    started, end = start(workdir, data_dir), time.monotonic() + 200
    while not ((log := workdir / "metrics.jsonl").exists() and log.read_text()):
        assert time.monotonic() < end and started.poll() is None, started.communicate()
        time.sleep(0.05)
    listed = subprocess.run(["pgrep", "-P", str(started.pid)], capture_output=True, text=True, check=True)
    os.kill(int(listed.stdout.split()[-1]), signal.SIGTERM)
    out, _ = started.communicate(timeout=200)
    assert started.returncode == PREEMPTED and "(Open MPI)" in out, out
    assert out.count("stopped and saved at step") == 2
