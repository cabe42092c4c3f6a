"""Two hosts with addresses of their own: one run, also over a wire that is cut while it trains."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs import quickstart
from tests.commands.disturbed import wait_until_stopped
from tests.commands.hosts_apart import Hosts, hosts_apart, missing
from tests.commands.programs import train_here
from tests.commands.running import NARROW, ROOT, STARTED, check_alike, narrow

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=missing() or "there are network namespaces"),
]

FLAGS = (
    *("--config=configs/quickstart.py", *NARROW, "--config.mesh.data=1", "--config.mesh.tower=2"),
    *("--config.train.steps=40", "--config.train.log_every=5", "--config.checkpoint.every_steps=11"),
    *("--coordinator_address=east:8476", "--num_processes=2", "--config.mesh.cpu_devices=1"),
)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(hosts_apart())
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
        yield found


def start(hosts: Hosts, *words: str) -> list[subprocess.Popen]:
    """The pair of towers with one on each host."""
    started = [
        subprocess.Popen(
            hosts.words(host, sys.executable, "-m", *words, f"--process_id={host}"),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for host in range(2)
    ]
    STARTED.extend(started)
    return started


def test_the_wire_is_cut(hosts: Hosts, tmp_path: Path, data_dir: Path) -> None:
    """Both end by themselves; started again they end where one process ends."""
    workdir, alone = tmp_path / "apart", tmp_path / "alone"
    words = ("alexnet_jax.main", *FLAGS, f"--workdir={workdir}", f"--config.data.dir={data_dir}")
    # One of them stands still while the wire is cut.
    soon = ("tests.commands.disturbed", "1:step@24=STOP", "-m", *words, "--config.limits.heartbeat=10")
    started = start(hosts, *soon)
    wait_until_stopped(started[1])
    hosts.cut()
    started[1].send_signal(signal.SIGCONT)
    for one in started:
        out, _ = one.communicate(timeout=300)
        assert one.returncode not in (0, None), out
    hosts.mend()
    for one in (again := start(hosts, *words)):
        out, _ = one.communicate(timeout=300)
        assert one.returncode == 0, out
        if one is again[0]:
            assert "hosts  2 processes, process 0 at east:8476" in out
            assert "resuming at step 20 of 40" in out
    sections = {"train": {"log_every": 5}, "checkpoint": {"every_steps": 11}}
    train_here(narrow(quickstart.get_config(), data_dir, 40, **sections), alone)
    check_alike(workdir, alone)
