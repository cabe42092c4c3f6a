"""A run that was interrupted ends bitwise where an undisturbed one does."""

import signal
import subprocess
import time
import warnings
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from alexnet_jax.errors import CONFIG, PREEMPTED
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
    out, _ = train(tmp_path / "parts", *EVERY, "--config.train.steps=20", data_dir=data_dir)
    assert out.startswith("already complete: step 20")


def test_the_end_is_validated(data_dir: Path, tmp_path: Path) -> None:
    """Killed between the last checkpoint and the last figures, a run finds them when it is started again."""
    train(tmp_path, "--config.train.steps=5", data_dir=data_dir)
    whole = lines(tmp_path)
    assert [line["split"] for line in whole] == ["train", "validation", "final"]
    log = tmp_path / "metrics.jsonl"
    log.write_text(log.read_text().splitlines(keepends=True)[0])
    train(tmp_path, "--config.train.steps=5", data_dir=data_dir)
    assert lines(tmp_path) == whole


def test_steps_that_are_past(data_dir: Path, tmp_path: Path) -> None:
    """A run that stopped at step 12 cannot become one of 5 steps, and stays as it is."""
    train(tmp_path, "--config.train.steps=12", data_dir=data_dir)
    log = tmp_path / "metrics.jsonl"
    log.write_text(log.read_text().replace('"final"', '"validation"'))
    before = (tmp_path / "config.json").read_text(), log.read_text()
    _, err = train(tmp_path, "--config.train.steps=5", data_dir=data_dir, code=CONFIG)
    assert err == f"error: {tmp_path} is at step 12 already, past the 5 asked for\n"
    assert before == ((tmp_path / "config.json").read_text(), log.read_text())


FLAGS = ("--config.train.steps=300", "--config.train.log_every=7", "--config.evaluation.every_epochs=0.5")


@pytest.fixture(scope="module")
def undisturbed(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("whole")
    train(workdir, *FLAGS, data_dir=data_dir)
    return workdir


def interrupt(process: subprocess.Popen, workdir: Path, step: int, number: signal.Signals) -> None:
    """Sends a signal once the log has reached a step."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if (workdir / "metrics.jsonl").exists() and lines(workdir) and lines(workdir)[-1]["step"] >= step:
            break
        time.sleep(0.01)
    process.send_signal(number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves(undisturbed: Path, data_dir: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Stopped in mid-run, between two lines of the log, and started again by the same command."""
    flags = ("--config=configs/quickstart.py", f"--workdir={tmp_path}", *NARROW, *FLAGS)
    process = command("main", *flags, data_dir=data_dir)
    interrupt(process, tmp_path, 7, number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == PREEMPTED, err
    assert "stopped and saved at step" in err
    assert "Traceback" not in err
    train(tmp_path, *FLAGS, data_dir=data_dir)
    assert_same_arrays(saved(undisturbed, 300), saved(tmp_path, 300))
    assert lines(tmp_path) == lines(undisturbed)


def test_a_kill_loses_nothing_but_time(undisturbed: Path, data_dir: Path, tmp_path: Path) -> None:
    """Killed between checkpoints: what was logged since the last one is dropped, and written once more."""
    flags = (*FLAGS, "--config.checkpoint.every_steps=40")
    every = ("--config=configs/quickstart.py", f"--workdir={tmp_path}", *NARROW, *flags)
    process = command("main", *every, data_dir=data_dir)
    interrupt(process, tmp_path, 105, signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    out, _ = train(tmp_path, *flags, data_dir=data_dir)
    assert "resuming at step" in out
    assert_same_arrays(saved(undisturbed, 300), saved(tmp_path, 300))
    assert lines(tmp_path) == lines(undisturbed)
