"""Losses and gradients that are no numbers end a run, which keeps what it had."""

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from alexnet_jax.config.fields import Config
from alexnet_jax.data.batches import TrainingOrder
from alexnet_jax.errors import DIVERGED, DivergedError
from alexnet_jax.learning import loss as loss_module
from alexnet_jax.learning.state import Batch
from alexnet_jax.learning.step import TrainStep, make_train_step
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.training import loop
from configs import quickstart
from tests.commands.programs import share_programs, train_here
from tests.commands.running import NARROW, here, lines, narrow
from tests.compiling import optimise
from tests.learning.poison import poison

MARK = 10  # one more than there are classes


@pytest.fixture(scope="module")
def config(data_dir: Path) -> Config:
    """Checkpoints after 6, 12 and 16 steps; lines after 4, 8, 12 and 16."""
    sections = {"train": {"log_every": 4}, "checkpoint": {"every_steps": 6, "keep": 9}}
    return narrow(quickstart.get_config(), data_dir, 16, **sections)


@pytest.fixture(scope="module")
def train_step(config: Config) -> TrainStep:
    """Traced by the first test, with what that has poisoned."""
    with pytest.MonkeyPatch.context() as patch:
        optimise(patch, 0)
        return make_train_step(config, make_mesh(1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 8, 12, 13, 16])
def test_one_picture(
    step: int, config: Config, train_step: TrainStep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its gradient is no number at one step: the first, at a line of the log, at and after a checkpoint, the
    last.
    """
    read = loop.feed

    def marked(*given: object) -> Iterator[Batch]:
        for done, batch in enumerate(read(*given), 1):
            labels = np.array(batch.labels)
            labels[3] = MARK if done == step and given[1] == "train" else labels[3]
            yield dataclasses.replace(batch, labels=jax.device_put(labels, batch.labels.sharding))

    share_programs(monkeypatch)
    monkeypatch.setattr(loop, "feed", marked)
    monkeypatch.setattr(loss_module, "score", poison(MARK))
    monkeypatch.setattr(loop, "make_train_step", lambda *_: train_step)
    with pytest.raises(DivergedError) as error:
        train_here(config, tmp_path)
    found, saved = str(error.value), (step - 1) // 6 * 6
    assert found.startswith(f"step {step}: loss ")
    assert (f"step {saved} was saved before" if saved else "nothing was saved") in found
    report = json.loads((tmp_path / "diverged.json").read_text())
    order = TrainingOrder(config.seed, 4000, config.train.batch_size, fixed=False)
    assert report["rows"] == order(step - 1).tolist()
    assert report["step"] == step
    assert np.isfinite(report["loss"])
    assert report["gradient_norms"] == dict.fromkeys(config.network.layers())  # none of them a number
    assert [line["step"] for line in Workdir(str(tmp_path)).metrics()] == list(range(4, step, 4))


def test_a_rate_that_is_too_high(data_dir: Path, tmp_path: Path) -> None:
    """By the command: one line, exit code 3; all steps before are saved and in the log."""
    flags = ("--config=configs/quickstart.py", f"--workdir={tmp_path}", *NARROW, "--config.train.steps=20")
    flags += ("--config.checkpoint.every_steps=1", "--config.train.log_every=1")
    flags += ("--config.mesh.data=1", "--config.mesh.tower=2")
    rate = "--config.schedule.learning_rate=1e4"
    _, err = here("main", *flags, rate, data_dir=data_dir, code=DIVERGED)
    [line] = err.splitlines()
    found = re.match(r"error: step (\d+): loss .* norms of gradients conv1 .*; step (\d+) was saved", line)
    assert int(found[2]) == int(found[1]) - 1
    assert len(lines(tmp_path)) == int(found[2])
