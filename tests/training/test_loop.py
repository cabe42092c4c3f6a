"""The loop, from within: the end of a run, and how far it runs ahead of the devices and of the disk."""

import shutil
import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from orbax.checkpoint._src.path import atomicity

from alexnet_jax.config.fields import Config
from alexnet_jax.errors import ConfigError, Interrupted, RefusedError
from alexnet_jax.learning.step import Health
from alexnet_jax.storage.checkpoint import Checkpoints
from alexnet_jax.training import loop
from alexnet_jax.training.evaluation import Evaluator
from configs import quickstart
from tests.commands.disturbed import disturbed
from tests.commands.programs import share_programs, train_here
from tests.commands.running import lines, narrow


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    share_programs(monkeypatch)


def test_the_end_of_a_run(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed between the last checkpoint and the last figures, a run finds them when it is started again.

    It cannot become one of fewer steps: that is refused, and leaves everything as it was.
    """

    def run(steps: int) -> str:
        train_here(narrow(quickstart.get_config(), data_dir, steps), tmp_path)
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


def test_stopped_while_it_evaluates(data_dir: Path, tmp_path: Path) -> None:
    """In the middle of a run and at its end: the evaluation is made anew, and nothing else."""
    sections = {"evaluation": {"every_epochs": 0.04, "batch_size": 200}, "train": {"log_every": 2}}
    config, parts = narrow(quickstart.get_config(), data_dir, 16, **sections), tmp_path / "parts"
    train_here(config, tmp_path / "whole")
    whole = lines(tmp_path / "whole")
    assert [line["step"] for line in whole if line["split"] == "validation"] == [10, 16]
    for step in (10, 16):
        with (
            disturbed(f"evaluating@{step}=TERM"),
            pytest.raises(Interrupted, match=f"stopped and saved at step {step}"),
        ):
            train_here(config, parts)
        found = lines(parts)
        assert found == whole[: len(found)]
        assert (found[-1]["step"], found[-1]["split"]) == (step, "train")
    train_here(config, parts)
    assert lines(parts) == whole


class Loss:
    """The loss of a step that is done as soon as somebody waits for it."""

    def __init__(self, step: int, events: list[str]):
        self.step, self.events = step, events

    def is_ready(self) -> bool:
        return False

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        self.events.append(f"{self.step} is done")
        return np.float32(1.0)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The order of effects around steps that cost nothing, and learn nothing."""
    found: list[str] = []

    def make_train_step(config: Config, mesh: object) -> Any:
        del mesh
        norms = np.ones(len(config.network.layers()), np.float32)

        def step(state: Any, totals: Any, *_: object) -> tuple:
            number = sum(event.endswith("begins") for event in found) + 1
            found.append(f"{number} begins")
            return state, jax.tree.map(lambda x: x + 1, totals), Health(Loss(number, found), norms)

        return step

    monkeypatch.setattr(loop, "make_train_step", make_train_step)
    return found


def test_steps_do_not_pile_up(events: list[str], data_dir: Path, tmp_path: Path) -> None:
    """One waits while another runs: with 32 on two simulated devices XLA:CPU stands still for ever."""
    sections = {"train": {"log_every": 100}}  # what is logged waits for more
    train_here(narrow(quickstart.get_config(), data_dir, 9, **sections), tmp_path)
    order = [f"{step} begins" for step in (1, 2)]
    order += [word for step in range(1, 8) for word in (f"{step} is done", f"{step + 2} begins")]
    assert events[: len(order)] == order


@pytest.mark.usefixtures("events")
def test_which_checkpoints_stay(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest; the first of every quarter of an epoch, of 250 steps; the best, saved when it is found."""
    errors = iter([0.5, 0.3, 0.4, 0.3, 0.6])  # after 50, 100, 150, 200, 250 steps
    found = {"loss": 1.0, "top5_error": 0.1}
    monkeypatch.setattr(Evaluator, "__call__", lambda *_: found | {"top1_error": next(errors)})
    sections = {"evaluation": {"every_epochs": 0.2}, "train": {"log_every": 300}}
    sections["checkpoint"] = {"every_steps": 66, "keep": 1, "keep_epochs": 0.25}
    train_here(narrow(quickstart.get_config(), data_dir, 250, **sections), tmp_path)
    # Saved after 50, 60, 100 (the best), 120, 180, 240 and 250; quarters begin at 62.5, 125, 187.5 and 250.
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [100, 180, 240, 250]


@pytest.mark.usefixtures("events")
def test_how_far_ahead_of_the_disk(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No step is computed that would make more than 20 be lost, on a disk that is as slow as can be."""
    folder, ahead, waited = tmp_path / "checkpoints", [], threading.Event()
    start_step, wait, commit = loop.Training.start_step, Checkpoints.wait, atomicity.on_commit_callback

    async def late(*given: Any, **named: Any) -> None:
        waited.wait(60)  # until somebody waits for it, as somebody must
        await commit(*given, **named)

    def let(self: Checkpoints) -> None:
        waited.set()
        wait(self)
        waited.clear()

    def look(self: loop.Training, done: int, *given: Any) -> None:
        saved = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
        ahead.append(done - max(saved, default=0))
        start_step(self, done, *given)

    monkeypatch.setattr(atomicity, "on_commit_callback", late)
    monkeypatch.setattr(Checkpoints, "wait", let)
    monkeypatch.setattr(loop.Training, "start_step", look)
    train_here(narrow(quickstart.get_config(), data_dir, 59, checkpoint={"every_steps": 20}), tmp_path)
    assert ahead == [*range(1, 21), *range(3, 21), *range(3, 21), *range(3, 6)]


def test_a_corrupt_log(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1\n{"step": 2, "split": "train"}\n')
    config = narrow(quickstart.get_config(), data_dir, 5)
    with pytest.raises(RefusedError, match=r"metrics\.jsonl is corrupt"):
        train_here(config, tmp_path)
