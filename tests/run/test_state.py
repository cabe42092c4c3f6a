"""Negative control of exact resumption: each item of the state matters, and leaving one out shows."""

import dataclasses
import shutil
from pathlib import Path

import jax
import pytest
from jax.sharding import Mesh

from alexnet_jax.config import Config
from alexnet_jax.learning.metrics import Totals
from alexnet_jax.learning.state import State
from alexnet_jax.learning.step import no_totals
from alexnet_jax.run import loop, start
from alexnet_jax.run.evaluation import Evaluator
from alexnet_jax.run.start import Progress
from alexnet_jax.sharding.mesh import make_mesh
from configs import quickstart
from tests.run.commands import lines, narrow
from tests.run.programs import share_programs, train_on
from tests.run.test_resume import saved

SAVED, END = 10, 16
Restored = tuple[State, Totals, Progress]


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    share_programs(monkeypatch)


def without(item: str, restored: Restored, config: Config, mesh: Mesh) -> Restored:
    """Forgets one item of what was restored."""
    state, totals, progress = restored
    if item == "totals":
        return state, no_totals(mesh), progress
    if item == "errors":
        return state, totals, dataclasses.replace(progress, errors=[])
    first = start.init_state(config, mesh)
    return dataclasses.replace(state, **{item: getattr(first, item)}), totals, progress


@pytest.mark.slow
@pytest.mark.usefixtures("half_optimised")
def test_what_is_left_out(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running averages, a rate that falls after evaluations, a checkpoint between two lines of the log."""
    figures = {"loss": 1.0, "top1_error": 0.5, "top5_error": 0.2}  # no better with time: the rate falls
    monkeypatch.setattr(Evaluator, "__call__", lambda *_: figures)
    config = narrow(
        quickstart.get_config("batch_norm"),
        data_dir,
        END,
        train={"log_every": 4},
        schedule={"kind": "plateau", "patience": 1, "factor": 10.0, "drops": ()},
        evaluation={"every_epochs": 0.012},
        checkpoint={"every_steps": SAVED + 1, "keep": 9},
    )
    whole, mesh = tmp_path / "whole", make_mesh(1, 2)
    train_on(config, whole, mesh)
    theirs = saved(whole, END)
    restore, same = loop.restore_or_start, {}
    for item in ("nothing", "step", "params", "averages", "velocity", "totals", "errors"):
        path = tmp_path / item
        shutil.copytree(whole, path)
        for folder in (path / "checkpoints").iterdir():
            if int(folder.name) > SAVED:
                shutil.rmtree(folder)

        def forgetful(*given: object, item: str = item) -> Restored:
            found = restore(*given)
            return found if item == "nothing" else without(item, found, config, mesh)

        monkeypatch.setattr(loop, "restore_or_start", forgetful)
        train_on(config, path, mesh)
        alike = jax.tree.map(lambda x, y: x.tobytes() == y.tobytes(), saved(path, END), theirs)
        same[item] = lines(path) == lines(whole) and jax.tree.all(alike)
    assert [item for item, kept in same.items() if kept] == ["nothing"]
