"""Negative control of exact resumption: each item of the state matters, and leaving one out shows."""

import dataclasses
import shutil
from pathlib import Path

import jax
import pytest
from jax.sharding import Mesh

from alexnet_jax.config.fields import Config
from alexnet_jax.learning.step import no_totals
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.training import opening
from alexnet_jax.training.evaluation import Evaluator
from alexnet_jax.training.opening import Run
from configs import quickstart
from tests.commands.programs import share_programs, train_on
from tests.commands.running import lines, narrow
from tests.commands.test_resume import saved

SAVED, END = 10, 16


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    share_programs(monkeypatch)


def without(item: str, run: Run, config: Config, mesh: Mesh) -> Run:
    """Forgets one item of what was restored."""
    if item == "totals":
        return dataclasses.replace(run, totals=no_totals(mesh))
    if item == "errors":
        return dataclasses.replace(run, errors=[])
    first = opening.init_state(config, mesh)
    return dataclasses.replace(run, state=dataclasses.replace(run.state, **{item: getattr(first, item)}))


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
    restore, same = opening.restore_or_start, {}
    for item in ("nothing", "step", "params", "averages", "velocity", "totals", "errors"):
        path = tmp_path / item
        shutil.copytree(whole, path)
        for folder in (path / "checkpoints").iterdir():
            if int(folder.name) > SAVED:
                shutil.rmtree(folder)

        def forgetful(*given: object, item: str = item) -> Run:
            found = restore(*given)
            return found if item == "nothing" else without(item, found, config, mesh)

        monkeypatch.setattr(opening, "restore_or_start", forgetful)
        train_on(config, path, mesh)
        alike = jax.tree.map(lambda x, y: x.tobytes() == y.tobytes(), saved(path, END), theirs)
        same[item] = lines(path) == lines(whole) and jax.tree.all(alike)
    assert [item for item, kept in same.items() if kept] == ["nothing"]
