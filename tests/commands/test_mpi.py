"""launch/mpi.sh with a real Open MPI: two ranks that find each other, and are told to stop."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from alexnet_jax.errors import PREEMPTED
from tests.commands.disturbed import python
from tests.commands.running import NARROW, ROOT, STARTED

pytestmark = pytest.mark.slow

ROOTS = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
FLAGS = ("--config=configs/quickstart.py", *NARROW, "--config.mesh.data=1", "--config.mesh.tower=2")


@pytest.fixture(autouse=True)
def _open_mpi() -> None:
    """Skips where none is installed, or it cannot start anything."""
    if shutil.which("mpirun") is None:
        pytest.skip("no mpirun: apt-get install openmpi-bin")
    words = ["mpirun", "-np", "1", "true"]
    tried = subprocess.run(words, env=os.environ | ROOTS, capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"mpirun starts nothing here: {tried.stderr.strip()[:200]}")


def test_two_ranks(tmp_path: Path, data_dir: Path) -> None:
    """One of them is told: both save, and mpirun says 42."""
    with socket.socket() as free:  # not the script's own, which another test might have
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = ROOTS | {"JAX_COORDINATOR_ADDRESS": address, "ALEXNET_DATA_DIR": str(data_dir)}
    environment |= {"PYTHON": str(python(tmp_path, "1:step@12=TERM"))}
    words = [str(ROOT / "launch" / "mpi.sh"), "-np", "2", "--oversubscribe", "--", *FLAGS]
    started = subprocess.Popen(
        [*words, "--config.mesh.cpu_devices=1", f"--workdir={tmp_path}"],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    STARTED.append(started)
    out, _ = started.communicate(timeout=300)
    assert started.returncode == PREEMPTED and "hosts  2 processes" in out, out
    assert out.count("stopped and saved at step") == 2
