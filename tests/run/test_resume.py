"""A run that was interrupted ends bitwise where an undisturbed one does."""

import dataclasses
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from alexnet_jax.errors import PREEMPTED, STOPPED
from tests.run.commands import NARROW, command, lines, train

EVERY = ("--config.train.log_every=2", "--config.checkpoint.every_steps=12")


def saved(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint, by name, as it lies on disk."""
    path = workdir / "checkpoints" / str(step) / "arrays"
    with ocp.PyTreeCheckpointer() as checkpointer:
        on_host = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), checkpointer.metadata(path).item_metadata.tree
        )
        restored = checkpointer.restore(path, args=ocp.args.PyTreeRestore(restore_args=on_host))
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


@dataclasses.dataclass(frozen=True)
class Moment:
    """When a run is disturbed, by what, and what it must say then."""

    has_come: Callable[[Path, str], bool]  # given its folder and what it has printed
    number: signal.Signals
    words: str


def logged(step: int) -> Callable[[Path, str], bool]:
    def has_come(path: Path, _: str) -> bool:
        return (path / "metrics.jsonl").exists() and any(line["step"] >= step for line in lines(path))

    return has_come


def is_saving(path: Path, out: str) -> bool:
    return "run  " in out and any(path.glob("checkpoints/*tmp*"))  # what the killed one left is gone by then


MOMENTS = (
    Moment(lambda _, out: "hosts" in out, signal.SIGTERM, "stopped, with nothing to save: the same"),
    Moment(lambda _, out: "run  " in out, signal.SIGTERM, "stopped and saved at step 1;"),  # it compiles
    Moment(logged(7), signal.SIGINT, "stopped and saved at step"),
    Moment(logged(145), signal.SIGKILL, ""),
    Moment(is_saving, signal.SIGTERM, "stopped and saved at step"),
)


def interrupt(process: subprocess.Popen, workdir: Path, moment: Moment) -> str:
    """Sends a signal when its moment has come; what the process complained of."""
    said = []
    listener = threading.Thread(target=lambda: said.extend(iter(process.stdout.readline, "")))
    listener.start()
    deadline = time.monotonic() + 120
    while (
        process.poll() is None and time.monotonic() < deadline and not moment.has_come(workdir, "".join(said))
    ):
        time.sleep(0.001)
    process.send_signal(moment.number)
    process.wait(timeout=120)
    listener.join()
    with process.stdout, process.stderr:
        return process.stderr.read()


def test_interrupted(data_dir: Path, tmp_path: Path) -> None:
    """By Ctrl-C, TERM and kill -9: starting, compiling, learning, saving; started again each time."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(whole, *FLAGS, data_dir=data_dir)
    flags = (*FLAGS, "--config.checkpoint.every_steps=40")
    everything = ("--config=configs/quickstart.py", f"--workdir={parts}", *NARROW, *flags)
    for moment in MOMENTS:
        process = command("main", *everything, data_dir=data_dir)
        err = interrupt(process, parts, moment)
        killed = moment.number == signal.SIGKILL
        assert process.returncode == (-moment.number if killed else PREEMPTED), err
        assert moment.words in err
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
