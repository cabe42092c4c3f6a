"""A run that was interrupted ends bitwise where an undisturbed one does."""

import signal
import time
import warnings
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from alexnet_jax.errors import PREEMPTED
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


FLAGS = ("--config.train.steps=300", "--config.train.log_every=7", "--config.evaluation.every_epochs=0.5")


@pytest.fixture(scope="module")
def undisturbed(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("whole")
    train(workdir, *FLAGS, data_dir=data_dir)
    return workdir


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves(undisturbed: Path, data_dir: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Stopped in mid-run, between two lines of the log, and started again by the same command."""
    flags = ("--config=configs/quickstart.py", f"--workdir={tmp_path}", *NARROW, *FLAGS)
    process = command("main", *flags, data_dir=data_dir)
    while process.poll() is None and not (tmp_path / "metrics.jsonl").exists():
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == PREEMPTED, err
    assert "stopped and saved at step" in err
    assert "Traceback" not in err
    train(tmp_path, *FLAGS, data_dir=data_dir)
    assert_same_arrays(saved(undisturbed, 300), saved(tmp_path, 300))
    assert lines(tmp_path) == lines(undisturbed)
