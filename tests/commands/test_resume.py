"""A run that was interrupted ends bitwise where an undisturbed one does."""

import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from alexnet_jax.config.fields import Config
from alexnet_jax.errors import PREEMPTED, STOPPED
from configs import quickstart
from tests.commands.programs import share_programs, train_here
from tests.commands.running import NARROW, ROOT, STARTED, lines, narrow

SECTIONS = {
    "train": {"log_every": 2},
    "checkpoint": {"every_steps": 6},
    "evaluation": {"every_epochs": 0.04},  # 10 steps
}
# As many devices as this process has: their number says on how many threads each sums.
MESH = ("--config.mesh.cpu_devices=8", "--config.mesh.data=1", "--config.mesh.tower=2")
FLAGS = tuple(
    f"--config.{name}.{key}={x}" for name, changes in SECTIONS.items() for key, x in changes.items()
)


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


def assert_same(found: Path, wanted: Path, step: int) -> None:
    """All that is saved, and every line but for the clock's."""
    ours, theirs = saved(found, step), saved(wanted, step)
    assert ours.keys() == theirs.keys()
    assert len(theirs) == 1 + 2 * 16 + 4, sorted(theirs)
    for name, value in theirs.items():
        assert value.tobytes() == ours[name].tobytes(), name
    assert lines(found) == lines(wanted)
    assert [line["step"] for line in lines(found) if line["split"] == "train"] == list(range(2, step + 1, 2))
    assert lines(found)[-1]["split"] == "final"


def disturb(workdir: Path, data_dir: Path, steps: int, *words: str) -> tuple[int, str, str]:
    """Starts a run whose process disturbs itself: its exit code, and what it said."""
    flags = ("--config=configs/quickstart.py", *NARROW, *MESH, *FLAGS, f"--config.train.steps={steps}")
    flags += (f"--workdir={workdir}", f"--config.data.dir={data_dir}")
    words = [sys.executable, "-m", "tests.commands.disturbed", *words, "-m", "alexnet_jax.main", *flags]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    STARTED.append(process)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    share_programs(monkeypatch)


def config(data_dir: Path, steps: int) -> Config:
    return narrow(quickstart.get_config(), data_dir, steps, **SECTIONS)


def test_killed_while_it_saves(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """10 steps to the end; 20 in a new process, killed before what it saves of step 18 is named; on to 20."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_here(config(data_dir, 20), whole)
    train_here(config(data_dir, 10), parts)
    code, out, err = disturb(parts, data_dir, 20, "saving@18=KILL")
    assert (code, err) == (-9, "")
    assert "resuming at step 10 of 20" in out
    assert [path for path in (parts / "checkpoints").glob("18*") if path.name != "18"]
    assert not (parts / "checkpoints" / "18").exists()
    newest = max(int(path.name) for path in (parts / "checkpoints").iterdir() if path.name.isdecimal())
    capsys.readouterr()
    train_here(config(data_dir, 20), parts)
    assert f"resuming at step {newest} of 20" in capsys.readouterr().out
    assert_same(parts, whole, 20)


@pytest.mark.slow
def test_interrupted(data_dir: Path, tmp_path: Path) -> None:
    """By TERM, Ctrl-C and kill -9: starting, compiling, learning, evaluating, saving; then started again."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_here(config(data_dir, 60), whole)
    for word, wanted, words in (
        ("starting=TERM", PREEMPTED, r"stopped, with nothing to save: the same command goes on\n"),
        (
            "compiling=TERM",
            PREEMPTED,
            r"stopped and saved at step 1; to go on: python -m alexnet_jax.main .*\n",
        ),
        ("step@9=INT", PREEMPTED, r"stopped and saved at step 9; .*\n"),
        ("step@30=KILL", -9, ""),
        ("evaluating@30=TERM", PREEMPTED, r"stopped and saved at step 30; .*\n"),
        ("saving@36=TERM", PREEMPTED, r"stopped and saved at step 37; .*\n"),
    ):
        code, out, err = disturb(parts, data_dir, 60, word)
        assert code == wanted, err
        assert re.search(f"{words}$", err)  # after what it says of the one before, who was killed
        assert "Traceback" not in err
        assert "disturbed: " in out
    train_here(config(data_dir, 60), parts)
    assert_same(parts, whole, 60)


@pytest.mark.slow
def test_a_second_ctrl_c_leaves_at_once(data_dir: Path, tmp_path: Path) -> None:
    """Sent as the first step is compiled, where libraries do not bear an exception."""
    code, _, err = disturb(tmp_path, data_dir, 20, "compiling=INT", "compiling=INT")
    assert (code, err.strip()) == (STOPPED, "left at once: what was saved before stays")
