"""Real processes on JAX's distributed runtime, started as users start them: the same figures, one end."""

import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alexnet_jax.data.batches import open_packed
from alexnet_jax.errors import PREEMPTED, REFUSED
from alexnet_jax.mesh import make_mesh
from alexnet_jax.run.evaluation import Member
from alexnet_jax.run.loop import train
from alexnet_jax.run.workdir import Workdir
from configs import quickstart
from tests.run.commands import NARROW, ROOT, check_alike, end, lines, narrow, run

QUICK = "--config=configs/quickstart.py"
SHORT = (QUICK, *NARROW, "--config.train.steps=8", "--config.train.log_every=1")
IN_BLOCKS = "--config.train.blocks=4"


def start(processes: int, *flags: str, data_dir: Path) -> subprocess.Popen:
    """launch/processes.py N FLAGS"""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "launch" / "processes.py"), str(processes), *flags],
        env=os.environ | {"ALEXNET_DATA_DIR": str(data_dir)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def together(processes: int, *flags: str, data_dir: Path, code: int = 0) -> str:
    started = start(processes, *flags, data_dir=data_dir)
    try:
        out, _ = started.communicate(timeout=400)
    finally:
        end(started)
    assert started.returncode == code, out
    return out


def mesh(data: int, tower: int, devices: int) -> tuple[str, ...]:
    sizes = {"data": data, "tower": tower, "cpu_devices": devices}
    return tuple(f"--config.mesh.{name}={size}" for name, size in sizes.items())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def four(home: Path, data_dir: Path) -> Path:
    """Four processes with two devices each: 4 x 2."""
    out = together(4, *SHORT, IN_BLOCKS, *mesh(0, 0, 2), f"--workdir={home / 'four'}", data_dir=data_dir)
    assert "[0] hosts  4 processes, process 0 at localhost:" in out
    assert all(line.startswith("[0]") for line in out.splitlines() if "train" in line or "conv1" in line)
    assert "[0] chosen 4 x 2 (data x tower): the widest tower axis" in out
    assert re.search(r"^\[0\]       8/8  train  .*  epoch 0\.03  waiting \d+ %  memory ", out, re.MULTILINE)
    assert [line[:20] for line in out.splitlines() if "] result " in line or "] next " in line] == [
        "[0] result    step  ",
        "[0] next   python -m",
    ]
    return home / "four"


def test_four_processes(four: Path, home: Path, data_dir: Path) -> None:
    """To the last bit as on one device."""
    recipe, one = quickstart.get_config(), home / "one"
    config = narrow(recipe, data_dir, 8, train={"log_every": 1, "blocks": 4})
    train(config, Workdir(str(one)), open_packed(config.data, 10), make_mesh(1, 1))
    check_alike(four, one, 0)
    assert sum("tfevents" in path.name for path in four.iterdir()) == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (4, 2)], ids=str)
def test_what_four_have_saved(shape: tuple[int, int], four: Path, data_dir: Path) -> None:
    """Is restored on one, two and eight devices of one process."""
    workdir = Workdir(str(four))
    config = workdir.read_config()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, dir=str(data_dir)))
    found, logged = Member(workdir, config, make_mesh(*shape), None).evaluate(), lines(four)[-1]
    assert found["loss"] == pytest.approx(logged["loss"], rel=1e-5)
    assert found["top1_error"] == pytest.approx(logged["top1_error"], abs=1e-3)


def test_one_is_told_to_stop(home: Path, data_dir: Path) -> None:
    """A pair in two processes: both stop and save at the same step; started again they end where one ends.

    It is told after an evaluation, and while a checkpoint is being written: Orbax could ask JAX in between.
    """
    flags = (*SHORT, "--config.train.steps=60", "--config.checkpoint.every_steps=10")
    flags += ("--config.evaluation.every_epochs=0.04", "--config.evaluation.batch_size=200")
    workdir, alone = home / "apart", home / "alone"
    started = start(2, *flags, *mesh(1, 2, 1), f"--workdir={workdir}", data_dir=data_dir)
    log, deadline = workdir / "metrics.jsonl", time.monotonic() + 300
    while started.poll() is None and time.monotonic() < deadline:
        evaluated = log.exists() and "validation" in log.read_text()
        if evaluated and any((workdir / "checkpoints").glob("*tmp*")):
            break
        time.sleep(0.001)
    listed = subprocess.run(["pgrep", "-P", str(started.pid)], capture_output=True, text=True, check=True)
    os.kill(int(listed.stdout.split()[-1]), signal.SIGTERM)  # one of the two
    out, _ = started.communicate(timeout=300)
    assert started.returncode == PREEMPTED, out
    stopped = re.findall(r"stopped and saved at step (\d+); to go on: start all processes again", out)
    assert len(set(stopped)) == 1, out
    out = together(2, *flags, *mesh(1, 2, 1), f"--workdir={workdir}", data_dir=data_dir)
    assert "resuming at step" in out
    run("main", *flags, *mesh(1, 2, 2), f"--workdir={alone}", data_dir=data_dir)
    check_alike(workdir, alone)
    assert [line["step"] for line in lines(workdir) if line["split"] == "train"] == list(range(1, 61))
    # Of the last checkpoint a file is lost that only one of them reads: both go on from the one before.
    newest = workdir / "checkpoints" / "60"
    for file in (newest / "arrays" / "ocdbt.process_1" / "d").iterdir():
        file.unlink()
    longer = (*flags, "--config.train.steps=62")
    out = together(2, *longer, *mesh(1, 2, 1), f"--workdir={workdir}", data_dir=data_dir)
    assert out.count(f"passed over: {newest} is damaged (") == 1
    assert "resuming at step 54 of 62" in out


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--config.train.epochs=2", ": its config has train.epochs=2.0, not 1.0"),
        (
            "--config.train.epoch=2",
            ": unknown field config.train.epoch; the nearest name is config.train.epochs",
        ),
    ],
)
def test_hosts_that_differ(flag: str, words: str, home: Path, data_dir: Path) -> None:
    """One with its own idea of the length: both refuse, in the same line."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"--coordinator_address=localhost:{free.getsockname()[1]}"
    flags = (*SHORT, *mesh(2, 2, 2), f"--workdir={home / 'differ'}", address, "--num_processes=2")
    flags += ("--config.train.epochs=1",)
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "alexnet_jax.main",
                *flags,
                f"--process_id={i}",
                *([flag] if i else []),
            ],
            cwd=ROOT,
            env=os.environ | {"ALEXNET_DATA_DIR": str(data_dir)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    # On a busy machine there are lines before it, of who waits for whom.
    said = {process.communicate(timeout=200)[1].splitlines()[-1] for process in started}
    assert [process.returncode for process in started] == [REFUSED, REFUSED]
    assert len(said) == 1, said
    [line] = said
    assert line.startswith("error: process 1 on ")
    assert line.endswith(words)


def test_a_mesh_that_leaves_one_without_work(home: Path, data_dir: Path) -> None:
    flags = (*SHORT, *mesh(1, 2, 2), f"--workdir={home / 'idle'}")
    out = together(2, *flags, data_dir=data_dir, code=REFUSED)
    words = "mesh 1 x 2 (data x tower) leaves process 1 without work: the processes have 2, 2 devices"
    assert all(f"[{i}] error: {words}" in out for i in range(2)), out
