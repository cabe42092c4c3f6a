"""A run that was interrupted ends bitwise where an undisturbed one does."""

import re
import signal
import subprocess
import time
import warnings
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp

from alexnet_jax.errors import PREEMPTED, STOPPED
from tests.run.commands import NARROW, command, lines, train

EVERY = ("--config.train.log_every=2", "--config.checkpoint.every_steps=12")


def saved(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint, by name, as it lies on disk."""
    path = workdir / "checkpoints" / str(step) / "arrays"
    with warnings.catch_warnings(), ocp.PyTreeCheckpointer() as checkpointer:
        warnings.simplefilter("ignore")  # it asks for shardings, and here there is only the host
        restored = checkpointer.restore(path, args=ocp.args.PyTreeRestore())
    flat = {}

    def walk(name: str, value: object) -> None:
        if isinstance(value, dict | list | tuple):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, below in items:
                walk(f"{name}/{key}", below)
        elif value is not None:
            flat[name] = np.asarray(value)

    walk("", restored)
    return flat


def assert_same_arrays(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert left.keys() == right.keys()
    assert len(left) == 1 + 2 * 16 + 4, sorted(left)
    for name, value in left.items():
        assert value.tobytes() == right[name].tobytes(), name


def test_twelve_and_eight_are_twenty(data_dir: Path, tmp_path: Path) -> None:
    """20 steps against 12 and then 8 in a new process: parameters, momentum, logged losses."""
    train(tmp_path / "whole", *EVERY, "--config.train.steps=20", data_dir=data_dir)
    train(tmp_path / "parts", *EVERY, "--config.train.steps=12", data_dir=data_dir)
    out, _ = train(tmp_path / "parts", *EVERY, "--config.train.steps=20", data_dir=data_dir)
    assert "resuming at step 12 of 20" in out
    assert_same_arrays(saved(tmp_path / "whole", 20), saved(tmp_path / "parts", 20))
    whole, parts = (
        [line for line in lines(tmp_path / name) if line["split"] == "train"] for name in ("whole", "parts")
    )
    assert whole == parts
    assert [line["step"] for line in whole] == list(range(2, 21, 2))
    assert lines(tmp_path / "parts")[-1]["split"] == "final"


FLAGS = ("--config.train.steps=300", "--config.train.log_every=7", "--config.evaluation.every_epochs=0.5")


def interrupt(process: subprocess.Popen, workdir: Path, step: int, number: signal.Signals) -> str:
    """Sends a signal once the log has reached a step; what the process complained of."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if (workdir / "metrics.jsonl").exists() and lines(workdir) and lines(workdir)[-1]["step"] >= step:
            break
        time.sleep(0.01)
    process.send_signal(number)
    return process.communicate(timeout=120)[1]


def test_interrupted_three_times(data_dir: Path, tmp_path: Path) -> None:
    """By Ctrl-C, TERM and kill -9, between checkpoints and lines of the log; started again each time."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(whole, *FLAGS, data_dir=data_dir)
    flags = (*FLAGS, "--config.checkpoint.every_steps=40")
    everything = ("--config=configs/quickstart.py", f"--workdir={parts}", *NARROW, *flags)
    for step, number in ((7, signal.SIGINT), (60, signal.SIGTERM), (145, signal.SIGKILL)):
        process = command("main", *everything, data_dir=data_dir)
        err = interrupt(process, parts, step, number)
        assert process.returncode == (-number if number == signal.SIGKILL else PREEMPTED), err
        assert ("stopped and saved at step" in err) == (number != signal.SIGKILL)
        assert "Traceback" not in err
    out, _ = train(parts, *flags, data_dir=data_dir)
    assert re.search(r"resuming at step \d+ of 300", out)
    assert_same_arrays(saved(whole, 300), saved(parts, 300))
    assert lines(parts) == lines(whole)


def test_a_second_ctrl_c_leaves_at_once(data_dir: Path, tmp_path: Path) -> None:
    """While the first step is being compiled, where libraries do not bear an exception."""
    process = command("main", "--config=configs/quickstart.py", f"--workdir={tmp_path}", data_dir=data_dir)
    for line in process.stdout:
        if line.startswith("run "):
            break
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert (process.returncode, err.strip()) == (STOPPED, "left at once: what was saved before stays")
