"""A real SLURM on this machine, in a folder of its own: two nodes with two pretended GPUs each.

    python -m tests.commands.slurm COMMAND...    runs a command with it, and takes it down again

Needs Debian's slurm-wlm, and root.
"""

import contextlib
import getpass
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

NODES = ("127.0.0.1", "127.0.0.2")
PATIENCE = 60  # seconds for it to come up
# Nobody is asked who he is, nothing is accounted for, and a job that is queued again need not wait.
CONFIG = """
ClusterName=tests
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
FirstJobId={first}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/node-%n.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/node-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MailProg=/bin/true
KillWait=30
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=127.0.0.[1-2] NodeHostname=localhost NodeAddr=127.0.0.[1-2] Port=[{nodes}] CPUs=4 Gres=gpu:2
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why there can be no SLURM here; "" if there can."""
    absent = [name for name in ("slurmctld", "slurmd", "sbatch", "scontrol") if shutil.which(name) is None]
    if absent:
        return f"no {', '.join(absent)}: apt-get install slurm-wlm"
    return "" if os.geteuid() == 0 else "slurmd must be started by root"


@contextlib.contextmanager
def slurm() -> Iterator[dict[str, str]]:
    """A SLURM that is up, and what commands need in their environment to find it."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "state").mkdir()
        environment = _configure(folder)
        daemons = [["slurmctld", "-D"], *(["slurmd", "-D", "-N", node] for node in NODES)]
        for words in daemons:
            process = subprocess.Popen(
                words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
        _await_nodes(environment, folder)
        yield environment
        subprocess.run(["scancel", "--user", getpass.getuser()], env=environment, check=False)
        for _ in range(100):
            left = subprocess.run(["squeue", "-h"], env=environment, capture_output=True, check=False)
            if not left.stdout.strip():
                break
            time.sleep(0.2)


def _configure(folder: Path) -> dict[str, str]:
    first = _free_ports(3)
    # Ports of jobs come from their numbers: two clusters at once should not count alike.
    values = {"controller": first, "nodes": f"{first + 1}-{first + 2}", "folder": folder}
    values |= {"user": getpass.getuser(), "first": random.randint(1, 4000)}
    (folder / "slurm.conf").write_text(CONFIG.format(**values))
    # Devices that are there, to stand for two GPUs.
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
    return kept | {"SLURM_CONF": str(folder / "slurm.conf")}


def _free_ports(count: int) -> int:
    """The first of so many in a row."""
    for first in random.sample(range(20000, 40000), 100):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise RuntimeError("no free ports")


def _await_nodes(environment: dict[str, str], folder: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = subprocess.run(
            ["sinfo", "-hN", "-o", "%T"], env=environment, capture_output=True, text=True, check=False
        )
        if found.stdout.split() == ["idle"] * len(NODES):
            return
        time.sleep(0.2)
    logs = "\n".join(path.read_text()[-2000:] for path in folder.glob("*.log"))
    raise RuntimeError(f"SLURM did not come up: {found.stdout}{found.stderr}\n{logs}")


if __name__ == "__main__":
    if missing():
        sys.exit(missing())
    with slurm() as found:
        sys.exit(subprocess.run(sys.argv[1:], env=found, check=False).returncode)
