"""Negative control of exact resumption: each item of the state matters, and leaving one out shows."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import pytest
from jax.sharding import Mesh

from alexnet_jax.config import Config
from alexnet_jax.data.batches import open_packed
from alexnet_jax.learning.metrics import Totals
from alexnet_jax.learning.step import State, init_state, no_totals
from alexnet_jax.mesh import make_mesh
from alexnet_jax.run import loop
from alexnet_jax.run.start import Progress
from alexnet_jax.run.workdir import Workdir
from configs import quickstart
from tests.run.commands import lines, narrow
from tests.run.test_resume import saved

SAVED, END = 10, 16
Restored = tuple[State, Totals, Progress]


@pytest.fixture(scope="module")
def config(data_dir: Path) -> Config:
    """Running averages, a rate that falls after evaluations, a checkpoint between two lines of the log."""
    return narrow(
        quickstart.get_config("batch_norm"),
        data_dir,
        END,
        train={"log_every": 4},
        schedule={"kind": "plateau", "patience": 1, "factor": 10.0, "drops": ()},
        evaluation={"every_epochs": 0.012, "batch_size": 500},
        checkpoint={"every_steps": SAVED + 1, "keep": 9},
    )


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return make_mesh(1, 2)


@pytest.fixture(scope="module")
def whole(config: Config, mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole")
    loop.train(config, Workdir(str(path)), open_packed(config.data, 10), mesh)
    return path


def fresh(config: Config, mesh: Mesh, name: str) -> Callable[[Restored], Restored]:
    """Forgets one item of what was restored."""

    def forget(restored: Restored) -> Restored:
        state, totals, progress = restored
        first = init_state(config, mesh)
        if name == "totals":
            return state, no_totals(mesh), progress
        if name == "errors":
            return state, totals, dataclasses.replace(progress, errors=[])
        return dataclasses.replace(state, **{name: getattr(first, name)}), totals, progress

    return forget


@pytest.mark.parametrize("item", ["nothing", "step", "params", "averages", "velocity", "totals", "errors"])
def test_what_is_left_out(
    item: str, config: Config, mesh: Mesh, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    shutil.copytree(whole, path)
    for folder in (path / "checkpoints").iterdir():
        if int(folder.name) > SAVED:
            shutil.rmtree(folder)
    if item != "nothing":
        restore, forget = loop.restore_or_start, fresh(config, mesh, item)
        monkeypatch.setattr(loop, "restore_or_start", lambda *given: forget(restore(*given)))
    loop.train(config, Workdir(str(path)), open_packed(config.data, 10), mesh)
    same = [
        lines(path) == lines(whole),
        jax.tree.all(
            jax.tree.map(lambda x, y: x.tobytes() == y.tobytes(), saved(path, END), saved(whole, END))
        ),
    ]
    assert all(same) == (item == "nothing"), same
