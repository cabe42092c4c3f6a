"""Which cluster flags and schedulers describe."""

import http.server
import threading
from pathlib import Path

import pytest

from alexnet_jax.errors import ConfigError, RefusedError
from alexnet_jax.run import cluster
from alexnet_jax.run.cluster import Cluster, Wish, decide

SLURM = {
    "SLURM_JOB_ID": "4100",
    "SLURM_STEP_ID": "1",
    "SLURM_STEP_NODELIST": "gpu[03-04,07],login",
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3)",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}
MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
}
TPU = {"TPU_WORKER_HOSTNAMES": "host-a,host-b,host-c", "TPU_WORKER_ID": "2"}
JOB = {"JAX_COORDINATOR_ADDRESS": "pod-0:700", "JAX_NUM_PROCESSES": "2", "JOB_COMPLETION_INDEX": "1"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        # 61440 + (4100 + 1) % 4096 = 61445
        (SLURM, Cluster("gpu03:61445", 6, 3, (1,), "SLURM step 4100.1")),
        (SLURM | {"SLURM_STEP_NODELIST": "n1,n2"}, Cluster("n1:61445", 6, 3, (1,), "SLURM step 4100.1")),
        (
            SLURM | {"SLURM_STEP_NODELIST": "127.0.0.[2-4]"},
            Cluster("127.0.0.2:61445", 6, 3, (1,), "SLURM step 4100.1"),
        ),
        (SLURM | {"JAX_COORDINATOR_PORT": "9"}, Cluster("gpu03:9", 6, 3, (1,), "SLURM step 4100.1")),
        # Alone on its host a task takes all GPUs, and where it sees but one it takes that.
        (
            SLURM | {"SLURM_STEP_TASKS_PER_NODE": "1(x6)"},
            Cluster("gpu03:61445", 6, 3, None, "SLURM step 4100.1"),
        ),
        (SLURM | {"CUDA_VISIBLE_DEVICES": "1"}, Cluster("gpu03:61445", 6, 3, None, "SLURM step 4100.1")),
        (SLURM | {"CUDA_VISIBLE_DEVICES": "0,1"}, Cluster("gpu03:61445", 6, 3, (1,), "SLURM step 4100.1")),
        # 1531576320 / 4096 = 373920, which is 1184 more than a multiple of 4096.
        (MPI, Cluster("10.96.0.1:62624", 4, 2, (0,), "Open MPI")),
        (MPI | SLURM, Cluster("10.96.0.1:62624", 4, 2, (0,), "Open MPI")),
        (
            MPI | {"OMPI_MCA_orte_hnp_uri": "4096.0;tcp6://[fe80::b9b,2620:10d::3]:43370"},
            Cluster("[fe80::b9b]:61441", 4, 2, (0,), "Open MPI"),
        ),
        (TPU, Cluster("host-a:8482", 3, 2, None, "TPU_WORKER_HOSTNAMES")),
        (
            TPU
            | {
                "MEGASCALE_NUM_SLICES": "2",
                "MEGASCALE_SLICE_ID": "1",
                "MEGASCALE_COORDINATOR_ADDRESS": "head:80",
            },
            Cluster("head:8482", 6, 5, None, "TPU_WORKER_HOSTNAMES"),
        ),
        (JOB, Cluster("pod-0:700", 2, 1, None, "JAX_NUM_PROCESSES and JOB_COMPLETION_INDEX")),
        (
            JOB | {"JAX_PROCESS_ID": "0"},
            Cluster("pod-0:700", 2, 0, None, "JAX_NUM_PROCESSES and JAX_PROCESS_ID"),
        ),
        # An address alone moves the port of whatever else is found.
        (SLURM | {"JAX_COORDINATOR_ADDRESS": "x:1"}, Cluster("x:1", 6, 3, (1,), "SLURM step 4100.1")),
    ],
)
def test_schedulers(environment: dict[str, str], expected: Cluster) -> None:
    assert decide(Wish(), environment) == (expected, str(expected))


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({}, "neither flags nor a scheduler say more"),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, "SLURM step 4100.1"),
        (TPU | {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, "TPU_WORKER_HOSTNAMES"),
        # The shell of an sbatch script is no step.
        (
            {name: value for name, value in SLURM.items() if name != "SLURM_STEP_NODELIST"},
            "neither flags nor",
        ),
    ],
)
def test_alone(environment: dict[str, str], why: str) -> None:
    found, line = decide(Wish(), environment)
    assert found is None
    assert line.startswith(f"1 process ({why}")


def test_flags_come_first() -> None:
    wish = Wish("auto", "here:5", 3, 1, (0, 2))
    assert decide(wish, SLURM)[0] == Cluster("here:5", 3, 1, (0, 2), "flags")
    assert decide(Wish("off", "here:5", 3, 1), SLURM) == (None, "1 process (--distributed=off)")
    assert decide(Wish(processes=1), SLURM)[0] is None
    assert decide(Wish(devices=(3,)), SLURM)[0].devices == (3,)


@pytest.mark.parametrize(
    ("wish", "environment", "message"),
    [
        (Wish("on"), {}, "--distributed=on, but nothing says how many processes"),
        (Wish("on", processes=1), {}, "--distributed=on, but there is one process by flags"),
        (Wish("on"), {"JAX_NUM_PROCESSES": "1"}, "--distributed=on, but there is one process by JAX_NUM"),
        (Wish(), {"JAX_NUM_PROCESSES": "2"}, "JAX_NUM_PROCESSES=2 needs JAX_COORDINATOR_ADDRESS beside it"),
        (Wish(address="a:1"), {"JAX_NUM_PROCESSES": "2"}, "JAX_NUM_PROCESSES=2 needs JAX_PROCESS_ID beside"),
        (Wish(processes=2), {}, r"--num_processes=2 need --coordinator_address and --process_id"),
        (
            Wish(address="a:1", processes=2),
            {},
            "--coordinator_address=a:1 and --num_processes=2 need --process_id",
        ),
        (Wish(address="a:1"), {}, "--coordinator_address=a:1 needs --num_processes and --process_id"),
        (Wish(address="a", processes=2, process=0), {}, r"address a \(flags\) must be HOST:PORT"),
        (
            Wish(address="a:1", processes=2, process=2),
            {},
            r"process 2 of 2 \(flags\): processes are counted from 0",
        ),
        (
            Wish(),
            {**MPI, "OMPI_MCA_orte_hnp_uri": ""},
            "Open MPI says 4 processes, but not where process 0 is",
        ),
    ],
)
def test_refusals(wish: Wish, environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        decide(wish, environment)


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({name: value for name, value in SLURM.items() if name != "SLURM_LOCALID"}, "slurm"),
        (SLURM | {"SLURM_STEP_NODELIST": "[1-2]"}, "slurm"),
        (MPI | {"OMPI_MCA_orte_hnp_uri": "1531576320.0;ud://1"}, "open mpi"),
        (JOB | {"JAX_NUM_PROCESSES": "two"}, "variables"),
    ],
)
def test_an_environment_that_is_not_understood(environment: dict[str, str], name: str) -> None:
    with pytest.raises(RefusedError, match=rf"speaks of {name} but cannot be understood .*--distributed=off"):
        decide(Wish(), environment)


def test_metadata_of_a_tpu_vm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real server answers as Google's does, busy at first; only the device file is pretended."""
    monkeypatch.setattr(cluster.time, "sleep", lambda _: None)
    failures = iter([True, False, True])
    answers = {"worker-network-endpoints": "a:1:10.0.0.7,b:2:10.0.0.8", "agent-worker-number": "1"}

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.headers["Metadata-Flavor"] == "Google"
            name, busy = Path(self.path).name, next(failures, False)
            self.send_response(503 if busy else 200 if name in answers else 404)
            self.end_headers()
            self.wfile.write(b"" if busy else answers.get(name, "").encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("localhost", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(cluster, "_on_tpu_vm", lambda: True)
        environment = {"GCE_METADATA_IP": f"localhost:{server.server_port}"}
        assert decide(Wish(), environment)[0] == Cluster("10.0.0.7:8482", 2, 1, None, "the TPU VM's metadata")
        answers["tpu-env"] = "ACCELERATOR_TYPE: 'v4'\nMEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\n"
        answers["tpu-env"] += "MEGASCALE_COORDINATOR_ADDRESS: '10.0.0.1:8080'\n"
        slices = Cluster("10.0.0.1:8482", 4, 3, None, "the TPU VM's metadata")
        assert decide(Wish(), environment)[0] == slices
        assert decide(Wish(), environment | {"TPU_SKIP_MDS_QUERY": "1"})[0] is None
        server.shutdown()
