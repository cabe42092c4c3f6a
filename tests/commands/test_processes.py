"""Real processes on JAX's distributed runtime, started as users start them: the same figures, one end."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_jax.errors import PREEMPTED, REFUSED
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.trained.opened import load_run
from configs import quickstart
from tests.commands.disturbed import launcher, python
from tests.commands.programs import train_here
from tests.commands.running import NARROW, ROOT, STARTED, check_alike, lines, narrow
from tests.compiling import lower_options


@pytest.fixture(autouse=True)
def _half_optimised(half_optimised: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes compile as this one does."""
    del half_optimised
    words = [f"--{name}={value}".lower() for name, value in lower_options(0).items()]
    monkeypatch.setenv("XLA_FLAGS", " ".join(words))


SHORT = ("--config=configs/quickstart.py", *NARROW, "--config.train.log_every=1")


def together(
    processes: int, workdir: Path, *flags: str, words: tuple[str, ...] = (), data_dir: Path, code: int = 0
) -> str:
    """launch/processes.py N FLAGS, disturbed."""
    workdir.mkdir(exist_ok=True)
    flags = (*SHORT, *flags, f"--workdir={workdir}", f"--config.data.dir={data_dir}")
    started = subprocess.Popen(
        launcher(python(workdir, *words), processes, *flags),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    STARTED.append(started)
    out, _ = started.communicate(timeout=400)
    assert started.returncode == code, out
    return out


def mesh(data: int, tower: int, devices: int) -> tuple[str, ...]:
    sizes = {"data": data, "tower": tower, "cpu_devices": devices}
    return tuple(f"--config.mesh.{name}={size}" for name, size in sizes.items())


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


@pytest.mark.slow
def test_four_processes(tmp_path: Path, data_dir: Path) -> None:
    """2 x 2 in four: to the last bit as on one device; what they save is read on one and on eight."""
    four, one = tmp_path / "four", tmp_path / "one"
    flags = ("--config.train.steps=5", "--config.train.blocks=4", *mesh(0, 0, 1))
    out = together(4, four, *flags, data_dir=data_dir)
    assert "[0] hosts  4 processes, process 0 at localhost:" in out
    assert all(line.startswith("[0]") for line in out.splitlines() if "train" in line or "conv1" in line)
    assert "[0] chosen 2 x 2 (data x tower): the widest tower axis" in out
    train_here(narrow(quickstart.get_config(), data_dir, 5, train={"log_every": 1, "blocks": 4}), one, 1, 1)
    check_alike(four, one, 0)
    assert sum("tfevents" in path.name for path in four.iterdir()) == 1
    workdir = Workdir(str(four))
    for shape in ((1, 1), (4, 2)):
        found = load_run(workdir, mesh=make_mesh(*shape)).evaluate()
        logged = lines(four)[-1]
        assert found["loss"] == pytest.approx(logged["loss"], rel=1e-5)
        assert found["top1_error"] == pytest.approx(logged["top1_error"], abs=1e-3)


@pytest.mark.slow
def test_one_is_told_to_stop(tmp_path: Path, data_dir: Path) -> None:
    """A pair in two processes: both stop and save at the same step; started again they end where one ends.

    It is told after an evaluation, and while a checkpoint is being written: Orbax could ask JAX in between.
    Of what is saved then a file is lost that only one of them reads: both go on from the checkpoint before.
    """
    flags = ("--config.train.steps=30", "--config.checkpoint.every_steps=10", *mesh(1, 2, 1))
    flags += ("--config.evaluation.every_epochs=0.04", "--config.evaluation.batch_size=200")
    workdir, alone = tmp_path / "apart", tmp_path / "alone"
    words = ("1:saving@18=TERM",)
    out = together(2, workdir, *flags, words=words, data_dir=data_dir, code=PREEMPTED)
    stopped = re.findall(r"stopped and saved at step (\d+); to go on: start all processes again", out)
    assert len(stopped) == 2 and len(set(stopped)) == 1, out
    newest = workdir / "checkpoints" / stopped[0]
    for file in (newest / "arrays" / "ocdbt.process_1" / "d").iterdir():
        file.unlink()
    before = max(int(path.name) for path in newest.parent.iterdir() if int(path.name) < int(stopped[0]))
    out = together(2, workdir, *flags, data_dir=data_dir)
    assert out.count(f"passed over: {newest} is damaged (") == 1
    assert f"resuming at step {before} of 30" in out
    sections = {"checkpoint": {"every_steps": 10}, "evaluation": {"every_epochs": 0.04, "batch_size": 200}}
    train_here(narrow(quickstart.get_config(), data_dir, 30, train={"log_every": 1}, **sections), alone)
    check_alike(workdir, alone)
    assert [line["step"] for line in lines(workdir) if line["split"] == "train"] == list(range(1, 31))


@pytest.mark.slow
def test_commands_that_differ(tmp_path: Path, data_dir: Path) -> None:
    """Both refuse, in the same line."""
    address = f"--coordinator_address=localhost:{free_port()}"
    flags = (*SHORT, *mesh(2, 2, 2), f"--workdir={tmp_path}", address, "--num_processes=2")
    flags += ("--config.train.epochs=1", f"--config.data.dir={data_dir}")
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "alexnet_jax.main", *flags, f"--process_id={process}", *own],
            cwd=ROOT,
            env=os.environ,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process, own in enumerate(([], ["--config.train.epoch=2"]))
    ]
    STARTED.extend(started)
    # On a busy machine there is a line before it, of who waits.
    said = {process.communicate(timeout=400)[1].splitlines()[-1] for process in started}
    assert [process.returncode for process in started] == [REFUSED, REFUSED]
    assert len(said) == 1, said
    assert re.match("error: process 1 on .*: unknown field config.train.epoch; ", said.pop())


@pytest.mark.slow
def test_a_mesh_that_leaves_one_without_work(tmp_path: Path, data_dir: Path) -> None:
    out = together(2, tmp_path, *mesh(1, 2, 2), data_dir=data_dir, code=REFUSED)
    words = "mesh 1 x 2 (data x tower) leaves process 1 without work: the processes have 2, 2 devices"
    assert all(f"[{process}] error: {words}" in out for process in range(2)), out
