"""Which processes are one run: as flags say, or as a scheduler has written into the environment."""

import faulthandler
import os
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils

from alexnet_jax.errors import ConfigError, RefusedError

# Ports that a job may take without asking; two jobs on one machine seldom take the same.
FIRST_PORT, PORTS = 61440, 4096
TPU_PORT = 8482
SAID = 200  # bytes of what processes tell each other


@dataclass(frozen=True)
class Cluster:
    """The processes of a run, and which of them this one is."""

    address: str  # HOST:PORT where process 0 can be reached
    processes: int
    process: int
    devices: tuple[int, ...] | None  # the GPUs of this host that this process takes; None: all it sees
    source: str  # what says so

    def __str__(self) -> str:
        return f"{self.processes} processes, process 0 at {self.address} ({self.source})"

    def join(self, heartbeat: int) -> None:
        """Makes one JAX of all processes, any of which is dead after `heartbeat` seconds without a word.

        Before the first use of any device.
        """
        # gRPC, by which JAX's processes talk, would take a proxy's way to the others.
        direct = os.environ.get("no_grpc_proxy") or os.environ.get("no_proxy", "")  # noqa: SIM112
        os.environ["no_grpc_proxy"] = ",".join(filter(None, [direct, _host(self.address)]))  # noqa: SIM112
        jax.distributed.initialize(
            self.address,
            self.processes,
            self.process,
            list(self.devices) if self.devices is not None else None,
            cluster_detection_method="deactivate",
            heartbeat_timeout_seconds=heartbeat,
            shutdown_timeout_seconds=heartbeat,
        )
        # Who loses another one is aborted by JAX, with a reason; where it stood then is no news.
        faulthandler.disable()


@dataclass(frozen=True)
class Wish:
    """What flags say of the cluster; None where they are silent."""

    distributed: str = "auto"
    address: str | None = None
    processes: int | None = None
    process: int | None = None
    devices: tuple[int, ...] | None = None

    @property
    def explicit(self) -> bool:
        return self.processes is not None or self.process is not None


@dataclass(frozen=True)
class ClusterFlags:
    """The flags of a command that may be many processes."""

    distributed: flags.FlagHolder[str]
    coordinator_address: flags.FlagHolder[str | None]
    num_processes: flags.FlagHolder[int | None]
    process_id: flags.FlagHolder[int | None]
    local_device_ids: flags.FlagHolder[list[str] | None]
    join_timeout: flags.FlagHolder[int]

    def wish(self) -> Wish:
        try:
            devices = self.local_device_ids.value and tuple(map(int, self.local_device_ids.value))
        except ValueError as error:
            raise ConfigError(
                f"--local_device_ids={','.join(self.local_device_ids.value)} must be numbers, as in 0,1"
            ) from error
        return Wish(
            self.distributed.value,
            self.coordinator_address.value,
            self.num_processes.value,
            self.process_id.value,
            devices or None,
        )


def agreed(value: int) -> int:
    """Process 0's value, in all of them: what each decides from its clock or its disk could differ."""
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def told_by_all(words: str) -> list[str]:
    """What each process has to say, in all of them; cut off where it is long."""
    text = np.frombuffer(words.encode()[:SAID].ljust(SAID, b"\0"), np.uint8)
    heard = multihost_utils.process_allgather(text, tiled=False).reshape(-1, SAID)
    return [line.tobytes().rstrip(b"\0").decode(errors="ignore") for line in heard]


def lost_peer(error: Exception) -> str:
    """What of an error says that another process no longer answers; empty where it says nothing of that."""
    lines = str(error).splitlines() or [""]
    return lines[0] if re.search(r"gloo|peer|connection|unavailable|heartbeat", lines[0], re.I) else ""


def define_cluster_flags() -> ClusterFlags:
    """`--distributed` and what goes with it."""
    return ClusterFlags(
        flags.DEFINE_enum(
            "distributed",
            "auto",
            ["auto", "on", "off"],
            "Join other processes: where flags or the environment say that there are any, always, or never.",
        ),
        flags.DEFINE_string("coordinator_address", None, "HOST:PORT where process 0 can be reached."),
        flags.DEFINE_integer("num_processes", None, "How many processes there are.", lower_bound=1),
        flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.", lower_bound=0),
        flags.DEFINE_list("local_device_ids", None, "The GPUs of this host that this process takes, as 0,1."),
        flags.DEFINE_integer(
            "join_timeout", 300, "Seconds to wait for the processes that are missing.", lower_bound=1
        ),
    )


def decide(wish: Wish, environment: Mapping[str, str] = os.environ) -> tuple[Cluster | None, str]:
    """The cluster to join, if there is one, and a line that says so, and why."""
    if wish.distributed == "off":
        return None, "1 process (--distributed=off)"
    found = _from_flags(wish, environment) if wish.explicit else _from_environment(wish, environment)
    if found is not None and found.processes > 1:
        return found, str(found)
    if wish.distributed == "on":
        says = (
            f"there is one process by {found.source}"
            if found
            else "nothing says how many processes there are"
        )
        raise ConfigError(
            f"--distributed=on, but {says}: give --coordinator_address=HOST:PORT, --num_processes and "
            "--process_id, or start with a file of launch/"
        )
    if found is None and wish.address:
        raise ConfigError(
            f"--coordinator_address={wish.address} needs --num_processes and --process_id beside it"
        )
    return None, f"1 process ({found.source if found else 'neither flags nor a scheduler say more'})"


def _from_flags(wish: Wish, environment: Mapping[str, str]) -> Cluster:
    address = wish.address or environment.get("JAX_COORDINATOR_ADDRESS")
    given = {"coordinator_address": address, "num_processes": wish.processes, "process_id": wish.process}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if missing and wish.processes != 1:
        there = [f"--{name}={value}" for name, value in given.items() if value is not None]
        raise ConfigError(f"{' and '.join(there)} need {' and '.join(missing)} beside them")
    return _cluster(address or "localhost:0", wish.processes, wish.process or 0, wish.devices, "flags")


def _from_environment(wish: Wish, environment: Mapping[str, str]) -> Cluster | None:
    """The first scheduler that says more than one process, or else any that says one."""
    alone = None
    for look in (_variables, _open_mpi, _slurm, _tpu):
        try:
            found = look(environment, wish.address or environment.get("JAX_COORDINATOR_ADDRESS"))
        except (KeyError, ValueError, IndexError, AttributeError) as error:
            name = look.__name__.strip("_").replace("_", " ")
            raise RefusedError(
                f"the environment speaks of {name} but cannot be understood ({error!r}): say "
                "--distributed=off, or give --coordinator_address, --num_processes and --process_id"
            ) from error
        if found is not None:
            devices = wish.devices or found.devices
            found = _cluster(found.address, found.processes, found.process, devices, found.source)
            if found.processes > 1:
                return found
            alone = alone or found
    return alone


def _cluster(
    address: str, processes: int, process: int, devices: tuple[int, ...] | None, source: str
) -> Cluster:
    """With numbers that fit together."""
    if not re.fullmatch(r".+:\d+", address):
        raise ConfigError(f"the coordinator's address {address} ({source}) must be HOST:PORT")
    if process >= processes:
        raise ConfigError(f"process {process} of {processes} ({source}): processes are counted from 0")
    return Cluster(address, processes, process, devices, source)


def _variables(environment: Mapping[str, str], address: str | None) -> Cluster | None:
    """JAX_NUM_PROCESSES, and JAX_PROCESS_ID or the number that Kubernetes gives to each pod of a job."""
    if "JAX_NUM_PROCESSES" not in environment:
        return None
    processes = environment["JAX_NUM_PROCESSES"]
    if processes == "1":
        return Cluster("localhost:0", 1, 0, None, "JAX_NUM_PROCESSES")
    name = "JAX_PROCESS_ID" if "JAX_PROCESS_ID" in environment else "JOB_COMPLETION_INDEX"
    if name not in environment or address is None:
        missing = "JAX_COORDINATOR_ADDRESS" if address is None else "JAX_PROCESS_ID"
        raise ConfigError(f"JAX_NUM_PROCESSES={processes} needs {missing} beside it")
    return Cluster(
        address,
        int(processes),
        int(environment[name]),
        None,
        f"JAX_NUM_PROCESSES and {name}",
    )


def _open_mpi(environment: Mapping[str, str], address: str | None) -> Cluster | None:
    """Open MPI 4 says where its launcher is, which is taken for process 0's host; 5 does not."""
    if "OMPI_COMM_WORLD_SIZE" not in environment:
        return None
    processes = int(environment["OMPI_COMM_WORLD_SIZE"])
    launcher = environment.get("OMPI_MCA_orte_hnp_uri")
    if address is None and launcher:
        v4, v6 = re.search(r"tcp://([^,:]+)|tcp6://\[([^],]+)", launcher).groups()
        port = _port(environment, int(launcher.split(".")[0]) >> 12)
        address = f"{v4 or f'[{v6}]'}:{port}"
    if address is None and processes > 1:
        raise ConfigError(
            f"Open MPI says {processes} processes, but not where process 0 is: start with launch/mpi.sh, or "
            "give --coordinator_address=HOST:PORT"
        )
    alone = int(environment["OMPI_COMM_WORLD_LOCAL_SIZE"]) == 1
    devices = _one_gpu(environment, int(environment["OMPI_COMM_WORLD_LOCAL_RANK"]), alone)
    rank = int(environment["OMPI_COMM_WORLD_RANK"])
    return Cluster(address or "localhost:0", processes, rank, devices, "Open MPI")


def _slurm(environment: Mapping[str, str], address: str | None) -> Cluster | None:
    """A step of a job, which srun has started; the shell of an sbatch script is none."""
    if "SLURM_STEP_NODELIST" not in environment or "SLURM_PROCID" not in environment:
        return None
    job, step = int(environment["SLURM_JOB_ID"]), int(environment["SLURM_STEP_ID"])
    if address is None:
        address = f"{_first_node(environment['SLURM_STEP_NODELIST'])}:{_port(environment, job + step)}"
    alone = set(re.findall(r"\d+", re.sub(r"\(x\d+\)", "", environment["SLURM_STEP_TASKS_PER_NODE"]))) == {
        "1"
    }
    return Cluster(
        address,
        int(environment["SLURM_STEP_NUM_TASKS"]),
        int(environment["SLURM_PROCID"]),
        _one_gpu(environment, int(environment["SLURM_LOCALID"]), alone),
        f"SLURM step {job}.{step}",
    )


def _first_node(nodes: str) -> str:
    """Of node1,node2 or rack[01-03,7],other or 10.0.0.[1-2]."""
    return re.match(r"([^,\[]+)(?:\[(\w+))?", nodes).expand(r"\1\2")


def _one_gpu(environment: Mapping[str, str], local: int, alone: bool) -> tuple[int, ...] | None:
    """One GPU for each of several processes on a host, if they all see them all."""
    visible = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return None if alone or (len(visible) == 1 and visible[0]) else (local,)


def _port(environment: Mapping[str, str], job: int) -> int:
    return int(environment.get("JAX_COORDINATOR_PORT", FIRST_PORT + job % PORTS))


def _tpu(environment: Mapping[str, str], address: str | None) -> Cluster | None:
    """A slice of a pod, or several: from variables on Kubernetes, from the metadata server on TPU VMs."""
    names = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    if names:
        hosts, worker, source = names.split(","), int(environment["TPU_WORKER_ID"]), "TPU_WORKER_HOSTNAMES"
    elif _on_tpu_vm() and "TPU_SKIP_MDS_QUERY" not in environment:
        answers = [_metadata(environment, key) for key in ("worker-network-endpoints", "agent-worker-number")]
        if None in answers:
            return None
        hosts = [worker.split(":")[-1] for worker in answers[0].split(",")]
        worker, source = int(answers[1]), "the TPU VM's metadata"
    else:
        return None
    known = environment if names else _tpu_variables(environment)
    slices, part = (
        int(known.get(f"MEGASCALE_{name}", n)) for name, n in (("NUM_SLICES", 1), ("SLICE_ID", 0))
    )
    if address is None:
        host = known.get("MEGASCALE_COORDINATOR_ADDRESS", hosts[0]).split(":")[0]
        address = f"{host}:{environment.get('JAX_COORDINATOR_PORT', TPU_PORT)}"
    return Cluster(address, len(hosts) * slices, worker + part * len(hosts), None, source)


def _on_tpu_vm() -> bool:
    return any(Path("/dev").glob("accel[0-9]*")) or Path("/dev/vfio/0").exists()


def _tpu_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment, and what the metadata server's lines NAME: 'value' say besides: of several slices."""
    lines = re.findall(
        r"^\s*(\w+)\s*:\s*'?(.*?)'?\s*$", _metadata(environment, "tpu-env") or "", re.MULTILINE
    )
    return dict(lines) | dict(environment)


def _host(address: str) -> str:
    return address.rsplit(":", 1)[0].strip("[]")


def _metadata(environment: Mapping[str, str], key: str) -> str | None:
    """What Google's metadata server says of this machine; None where there is no such server."""
    server = environment.get("GCE_METADATA_IP", "metadata.google.internal")
    url = f"http://{server}/computeMetadata/v1/instance/attributes/{key}"
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    for pause in (1, 2, None):  # it may be busy when all start at once
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
        except OSError as error:
            if isinstance(error.__cause__ or getattr(error, "reason", None), socket.gaierror):
                return None  # not on Google Cloud
        if pause:
            time.sleep(pause)
    return None
