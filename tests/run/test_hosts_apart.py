"""Two hosts with addresses of their own: one run, also over a wire that is cut while it trains."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.run.commands import NARROW, ROOT, check_alike, run
from tests.run.hosts_apart import Hosts, hosts_apart, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "there are network namespaces")

FLAGS = (
    *("--config=configs/quickstart.py", *NARROW, "--config.mesh.data=1", "--config.mesh.tower=2"),
    *("--config.train.steps=120", "--config.train.log_every=5", "--config.checkpoint.every_steps=11"),
)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(hosts_apart())
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
        yield found


def start(hosts: Hosts, workdir: Path, data_dir: Path) -> list[subprocess.Popen]:
    """The pair of towers with one on each host."""
    joins = ("--coordinator_address=east:8476", "--num_processes=2", "--config.mesh.cpu_devices=1")
    return [
        subprocess.Popen(
            hosts.words(
                host,
                *(sys.executable, "-m", "alexnet_jax.main", *FLAGS, *joins),
                *(f"--process_id={host}", f"--workdir={workdir}"),
            ),
            cwd=ROOT,
            env=os.environ | {"ALEXNET_DATA_DIR": str(data_dir)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for host in range(2)
    ]


def test_the_wire_is_cut(hosts: Hosts, tmp_path: Path, data_dir: Path) -> None:
    """Both end within a minute; started again they end where one process ends."""
    workdir = tmp_path / "apart"
    started = start(hosts, workdir, data_dir)
    end = time.monotonic() + 200
    while not any(path.name.isdecimal() for path in (workdir / "checkpoints").glob("*")):
        assert time.monotonic() < end and all(one.poll() is None for one in started)
        time.sleep(0.05)
    hosts.cut()
    cut = time.monotonic()
    for one in started:
        one.communicate(timeout=100)
        assert one.returncode not in (0, None)
    assert time.monotonic() - cut < 60
    hosts.mend()
    for one in (again := start(hosts, workdir, data_dir)):
        out, _ = one.communicate(timeout=200)
        assert one.returncode == 0, out
        if one is again[0]:
            assert "hosts  2 processes, process 0 at east:8476 (flags)" in out
            assert "resuming at step" in out
    alone = tmp_path / "alone"
    run("main", *FLAGS, "--config.mesh.cpu_devices=2", f"--workdir={alone}", data_dir=data_dir)
    check_alike(workdir, alone)
