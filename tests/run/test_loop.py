"""The loop, from within: the end of a run, and how far it runs ahead of the devices."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet_jax.data.batches import open_packed
from alexnet_jax.errors import ConfigError, DivergedError, Interrupted, RefusedError
from alexnet_jax.learning.step import Batch, State
from alexnet_jax.mesh import make_mesh
from alexnet_jax.run.evaluation import Evaluator
from alexnet_jax.run.loop import Run, train
from alexnet_jax.run.workdir import Workdir
from configs import quickstart
from tests.run.commands import ROOT, lines, narrow


def test_the_end_of_a_run(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed between the last checkpoint and the last figures, a run finds them when it is started again.

    It cannot become one of fewer steps: that is refused, and leaves everything as it was.
    """

    def run(steps: int) -> str:
        config = narrow(quickstart.get_config(), data_dir, steps)
        train(config, Workdir(str(tmp_path)), open_packed(config.data, 10), make_mesh(1, 2))
        return capsys.readouterr().out

    run(5)
    whole = lines(tmp_path)
    assert [line["split"] for line in whole] == ["train", "validation", "final"]
    assert run(5).startswith("already complete: step 5, validation loss")
    log = tmp_path / "metrics.jsonl"
    log.write_text(log.read_text().splitlines(keepends=True)[0])
    before = (tmp_path / "config.json").read_text(), log.read_text()
    with pytest.raises(ConfigError, match=f"{tmp_path} is at step 5 already, past the 3 asked for"):
        run(3)
    assert before == ((tmp_path / "config.json").read_text(), log.read_text())
    assert "resuming at step 5 of 5" in run(5)
    assert lines(tmp_path) == whole
    shutil.rmtree(tmp_path / "checkpoints")  # figures without weights are no run: it is made again
    assert "run    5 steps, batch" in run(5)
    assert lines(tmp_path) == whole


@pytest.mark.parametrize("end", [10, 16])
def test_stopped_while_it_evaluates(
    end: int, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the third batch of an evaluation, in the middle of a run and at its end: it is made anew."""
    sections = {"evaluation": {"every_epochs": 0.04, "batch_size": 200}, "train": {"log_every": 2}}
    config, mesh = narrow(quickstart.get_config(), data_dir, end, **sections), make_mesh(1, 2)
    packed, evaluate, looked = open_packed(config.data, 10), Evaluator.__call__, []

    def evaluate_and_look(self: Evaluator, state: State, tell: Callable[[int], None]) -> dict[str, float]:
        def look(images: int) -> None:
            looked.append(images)
            if len(looked) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            tell(images)

        return evaluate(self, state, look)

    train(config, Workdir(str(tmp_path / "whole")), packed, mesh)
    monkeypatch.setattr(Evaluator, "__call__", evaluate_and_look)
    parts = Workdir(str(tmp_path / "parts"))
    with pytest.raises(Interrupted, match="stopped and saved at step 10"):
        train(config, parts, packed, mesh)
    assert [line["step"] for line in lines(parts.path)] == [2, 4, 6, 8, 10]
    train(config, parts, packed, mesh)
    whole = lines(tmp_path / "whole")
    assert lines(parts.path) == whole
    assert [line["step"] for line in whole if line["split"] == "validation"] == sorted({10, end})


def test_which_checkpoints_stay(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest; the first of every quarter of an epoch, of 250 steps; the best, saved when it is found."""
    errors = iter([0.5, 0.3, 0.4, 0.3, 0.6])  # after 50, 100, 150, 200, 250 steps
    found = {"loss": 1.0, "top5_error": 0.1}
    monkeypatch.setattr(Evaluator, "__call__", lambda *_: found | {"top1_error": next(errors)})
    sections = {"evaluation": {"every_epochs": 0.2}, "train": {"log_every": 100}}
    sections["checkpoint"] = {"every_steps": 66, "keep": 1, "keep_epochs": 0.25}
    config = narrow(quickstart.get_config(), data_dir, 250, **sections)
    train(config, Workdir(str(tmp_path)), open_packed(config.data, 10), make_mesh(1, 1))
    # Saved after 50, 60, 100 (the best), 120, 180, 240 and 250; quarters begin at 62.5, 125, 187.5 and 250.
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [100, 180, 240, 250]


def test_how_far_ahead_of_the_disk(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No step is computed that would make more than 20 be lost; these steps take less time than the disk."""
    folder, advance, ahead = tmp_path / "checkpoints", Run.advance, []

    def saved() -> list[int]:
        return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())

    def look(self: Run, done: int, batch: Batch) -> None:
        ahead.append(done - max(saved(), default=0))
        advance(self, done, batch)

    monkeypatch.setattr(Run, "advance", look)
    config = narrow(quickstart.get_config(), data_dir, 60, checkpoint={"every_steps": 20, "keep": 9})
    train(config, Workdir(str(tmp_path)), open_packed(config.data, 10), make_mesh(1, 1))
    assert saved() == [18, 36, 54, 60]
    assert 18 < max(ahead) <= 20  # beyond 18 steps went on beside the writing


def test_a_corrupt_log(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1\n{"step": 2, "split": "train"}\n')
    config = narrow(quickstart.get_config(), data_dir, 5)
    with pytest.raises(RefusedError, match=r"metrics\.jsonl is corrupt"):
        train(config, Workdir(str(tmp_path)), open_packed(config.data, 10), make_mesh(1, 2))


def test_weights_that_are_no_numbers(data_dir: Path, tmp_path: Path) -> None:
    """A rate that is far too high: what was saved before is whole."""
    hopeless = {"schedule": {"learning_rate": 1e9}, "checkpoint": {"every_steps": 1}}
    config = narrow(quickstart.get_config(), data_dir, 20, **hopeless)
    with pytest.raises(DivergedError) as error:
        train(config, Workdir(str(tmp_path)), open_packed(config.data, 10), make_mesh(1, 2))
    found = re.search(
        r"step (\d+): loss .*, norms of gradients conv1 .*; step (\d+) was saved before; lower",
        str(error.value),
    )
    assert found, error.value
    assert int(found[2]) == int(found[1]) - 1


# Batches that cost nothing: steps are launched as fast as the loop lets them.
RUNNING_AHEAD = """
import pathlib, sys
from alexnet_jax.data.batches import open_packed
from alexnet_jax.mesh import open_mesh
from alexnet_jax.run import loop
from alexnet_jax.run.workdir import Workdir
from configs import quickstart
from tests.run.commands import narrow

config = narrow(quickstart.get_config(), pathlib.Path(sys.argv[1]), 100)
read = loop.feed

def repeated(packed, split, order, steps, *others):
    batch = next(read(packed, split, order, range(1), *others))
    for _ in steps:
        yield batch

loop.feed = repeated
mesh = open_mesh(config)
loop.train(config, Workdir(sys.argv[2]), open_packed(config.data, 10), mesh)
"""


def test_steps_do_not_pile_up(data_dir: Path, tmp_path: Path) -> None:
    """With 32 steps in flight on two simulated devices and two cores, XLA:CPU stands still for ever."""
    found = subprocess.run(
        [sys.executable, "-c", RUNNING_AHEAD, str(data_dir), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "100/100  final" in found.stdout, found.stderr
