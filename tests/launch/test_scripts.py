"""Scripts say what they would run, are linted, and their YAML says what the schedulers need."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from alexnet_jax.errors import CONFIG, DIVERGED, PREEMPTED, REFUSED

ROOT = Path(__file__).parent.parent.parent
LAUNCH = ROOT / "launch"
SHELL = sorted([*LAUNCH.glob("*.sh"), LAUNCH / "slurm.sbatch"])
FLAGS = ("--config=configs/quickstart.py", "--workdir=runs/a b")
TPU = {"TPU": "small", "ZONE": "here-a", "TYPE": "v5litepod-16", "IMAGE": "some-image"}


def printed(*words: str, code: int = 0, **environment: str) -> list[list[str]]:
    """The commands that a script prints, as a shell reads them."""
    kept = {name: value for name, value in os.environ.items() if name not in TPU}
    command = [sys.executable if words[0].endswith(".py") else "bash", str(LAUNCH / words[0]), *words[1:]]
    ended = subprocess.run(
        command, env=kept | environment, cwd=LAUNCH, capture_output=True, text=True, check=False
    )
    assert ended.returncode == code, ended.stderr
    return [shlex.split(line) for line in (ended.stdout or ended.stderr).splitlines()]


def test_shell() -> None:
    for path in SHELL:
        subprocess.run(["bash", "-n", path], check=True)
        assert path.suffix == ".sbatch" or os.access(path, os.X_OK), path
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed: only bash has read it")
    subprocess.run(["shellcheck", *SHELL], check=True)


def test_local() -> None:
    [words] = printed("local.sh", "--print", *FLAGS)
    assert words[-5:] == ["-m", "alexnet_jax.main", "--distributed=off", *FLAGS]


def test_again() -> None:
    """Until it does not end with 42; other codes are passed on."""
    script = 'echo started; [ -e "$0" ] && exit 3; touch "$0"; exit 42'
    flag = ROOT / "again-was-here"
    try:
        words = ["bash", str(LAUNCH / "again.sh"), "bash", "-c", script, str(flag)]
        ended = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (ended.stdout, ended.returncode) == ("started\nstarted\n", 3)
    finally:
        flag.unlink(missing_ok=True)


def test_processes() -> None:
    commands = printed("processes.py", "--print", "3", *FLAGS, CUDA_VISIBLE_DEVICES="")
    assert [[word for word in words if "process_id" in word] for words in commands] == [
        [f"--process_id={i}"] for i in range(3)
    ]
    assert all(words[-2:] == [*FLAGS] and "--num_processes=3" in words for words in commands)
    assert len({words[3] for words in commands}) == 1 and "--local_device_ids" not in str(commands)
    gpus = printed("processes.py", "--print", "2", *FLAGS, CUDA_VISIBLE_DEVICES="0,1")
    assert [words[-3] for words in gpus] == ["--local_device_ids=0", "--local_device_ids=1"]
    for wrong in ([], ["two"], ["0", *FLAGS], ["2"]):
        assert "usage:" in printed("processes.py", *wrong, code=2)[0]


# Two processes, of which one ends badly and the other does not notice.
ONE_IS_LOST = """
import sys
sys.path.insert(0, sys.argv[1])
import processes

processes.GRACE = 0
ends = [["sleep", "900"], ["sh", "-c", "exit 3"]]
sys.exit(processes.Processes(ends if sys.argv[2] == "last" else ends[::-1]).wait())
"""


def test_one_process_is_lost() -> None:
    """The others are ended, and the code is its own."""
    for which in ("first", "last"):
        words = [sys.executable, "-c", ONE_IS_LOST, str(LAUNCH), which]
        assert subprocess.run(words, timeout=300, check=False).returncode == 3


def test_slurm() -> None:
    [words] = printed("slurm.sbatch", "--print", *FLAGS)
    assert words[:2] == ["srun", "--kill-on-bad-exit=1"] and words[-4:] == ["-m", "alexnet_jax.main", *FLAGS]
    [words] = printed("slurm.sbatch", "--print", *FLAGS, SLURM_CPUS_PER_TASK="16")
    assert words[2] == "--cpus-per-task=16"
    asked = re.findall(r"^#SBATCH (\S+)$", (LAUNCH / "slurm.sbatch").read_text(), re.MULTILINE)
    assert {"--signal=TERM@300", "--requeue", "--open-mode=append"} <= set(asked)
    assert "--gpus-per-task" not in str(asked)


def test_mpi() -> None:
    """Every rank says who it is, by what Open MPI has told it."""
    [words] = printed("mpi.sh", "--print", "-np", "4", "--hostfile", "my hosts", "--", *FLAGS)
    assert words[:9] == ["mpirun", "--bind-to", "none", "-np", "4", "--hostfile", "my hosts", "sh", "-c"]
    ranks = {f"OMPI_COMM_WORLD_{name}": f"{i}" for i, name in enumerate(("RANK", "LOCAL_RANK", "SIZE"))}
    shown = ["sh", "-c", words[9], "rank", "echo", *words[12:]]
    said = subprocess.run(shown, env=os.environ | ranks, capture_output=True, text=True, check=True).stdout
    found = re.fullmatch(
        r"-m alexnet_jax.main --coordinator_address=\S+:61440 (.*) --num_processes=2 --process_id=0 "
        r"--local_device_ids=1\n",
        said,
    )
    assert found[1] == " ".join(FLAGS)
    [words] = printed("mpi.sh", "--print", "-np", "4", "--", *FLAGS, ALEXNET_DATA_DIR="/my data")
    assert words[5:7] == ["-x", "ALEXNET_DATA_DIR"]
    for wrong in (["-np", "4", *FLAGS], ["--", *FLAGS]):
        assert "usage:" in printed("mpi.sh", *wrong, code=2)[0]


def test_tpu_vm() -> None:
    for verb, more, wanted in (
        ("create", [], ["create", "small", "--zone=here-a", "--accelerator-type=v5litepod-16"]),
        ("setup", [], ["git", "archive"]),
        ("run", FLAGS, ["ssh", "small", "--zone=here-a", "--worker=all"]),
        ("logs", [], ["ssh", "small", "--zone=here-a", "--worker=0"]),
        ("status", [], ["describe", "small"]),
        ("stop", [], ["ssh", "small"]),
        ("delete", ["--yes"], ["delete", "small", "--zone=here-a", "--quiet"]),
    ):
        text = " ".join(word for line in printed("tpu_vm.sh", "--print", verb, *more, **TPU) for word in line)
        assert " ".join(wanted) in text
    # What arrives on the hosts is one command with its words as they were typed.
    lines = printed("tpu_vm.sh", "--print", "run", *FLAGS, **TPU)
    [remote] = [word for line in lines for word in line if word.startswith("--command=")]
    inner = shlex.split(remote.removeprefix("--command="))
    assert [*FLAGS] == inner[inner.index("alexnet_jax.main") + 1 :][:2]


def test_tpu_vm_refuses() -> None:
    for words, environment, message in (
        ([], TPU, "launch/tpu_vm.sh"),
        (["create"], {}, "set TPU, as in"),
        (["create"], {"TPU": "a", "ZONE": "b"}, "set TYPE, as in"),
        (["delete"], TPU, "say delete --yes"),
        (["remove"], TPU, "launch/tpu_vm.sh"),
        (["run"], TPU, "launch/tpu_vm.sh"),
    ):
        lines = printed("tpu_vm.sh", *words, code=2, **environment)
        assert message in " ".join(word for line in lines for word in line), words


def jobset(name: str) -> dict[str, Any]:
    return yaml.safe_load((LAUNCH / "gke" / name).read_text())


def test_jobsets() -> None:
    """Only what another start may help is started again."""
    for name in ("gpu.yaml", "tpu.yaml"):
        job = jobset(name)["spec"]["replicatedJobs"][0]["template"]["spec"]
        assert job["completions"] == job["parallelism"] and job["completionMode"] == "Indexed", name
        [rule] = job["podFailurePolicy"]["rules"]
        assert (rule["action"], rule["onExitCodes"]["operator"]) == ("FailJob", "In"), name
        assert set(rule["onExitCodes"]["values"]) == {CONFIG, DIVERGED, REFUSED}, name
        pod = job["template"]["spec"]
        assert pod["restartPolicy"] == "Never" and job["backoffLimit"] == 0, name
        [container] = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


def test_pods_find_each_other() -> None:
    """The address is the first pod's, as JobSet names it; the number is from Kubernetes."""
    whole = jobset("gpu.yaml")
    job = whole["spec"]["replicatedJobs"][0]
    [container] = job["template"]["spec"]["template"]["spec"]["containers"]
    name, hosts = whole["metadata"]["name"], job["template"]["spec"]["completions"]
    wanted = {f"--coordinator_address={name}-{job['name']}-0-0.{name}:61440", f"--num_processes={hosts}"}
    assert wanted | {"--process_id=$(JOB_COMPLETION_INDEX)"} <= set(container["args"])


def test_tpu_pods_match_their_slice() -> None:
    job = jobset("tpu.yaml")["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    chips = pod["containers"][0]["resources"]["limits"]["google.com/tpu"]
    assert rows * columns == job["completions"] * chips


def test_skypilot() -> None:
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [PREEMPTED]
    script = task["run"].replace(".venv/bin/python", "echo")
    environment = {
        "SKYPILOT_NODE_IPS": "10.0.0.4\n10.0.0.5",
        "SKYPILOT_NUM_NODES": "2",
        "SKYPILOT_NODE_RANK": "1",
    }
    out = subprocess.run(
        ["bash", "-c", script], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    wanted = "--coordinator_address=10.0.0.4:61440 --num_processes=2 --process_id=1\n"
    assert out.stdout.endswith(wanted)


def test_dockerfile() -> None:
    """Not root, and nothing that is not pinned."""
    text = (LAUNCH / "Dockerfile").read_text()
    steps = [line.split(maxsplit=1) for line in text.splitlines() if re.match(r"[A-Z]+ ", line)]
    assert re.search(r":\d+\.\d+\.\d+", dict(steps)["FROM"])
    assert [words for step, words in steps if step == "USER"] == ["alexnet"]
    for _, words in (step for step in steps if step[0] == "COPY"):
        for path in words.split()[:-1]:
            assert (ROOT / path).exists(), path
    pins = (LAUNCH / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"#.*|[\w.-]+==[\w.+-]+", line) for line in pins)
    named = {line.partition("==")[0].lower().replace("_", "-") for line in pins}
    required = re.findall(r"^([\w-]+)", (ROOT / "requirements-cpu.txt").read_text(), re.MULTILINE)
    assert {name.lower().replace("_", "-") for name in required} - {"ruff"} <= named
    assert {"jax-cuda12-plugin", "libtpu"} <= named


def test_every_file_is_in_the_table() -> None:
    table = (LAUNCH / "README.md").read_text()
    files = {path.relative_to(LAUNCH).as_posix() for path in LAUNCH.rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    assert {name for name in files if name not in table} <= {"README.md", "constraints.txt"}
