"""Losses and gradients that are no numbers end a run, which keeps what it had."""

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from alexnet_jax.data.batches import TrainingOrder, open_packed
from alexnet_jax.errors import DIVERGED, DivergedError
from alexnet_jax.learning import step as step_module
from alexnet_jax.learning.step import Batch
from alexnet_jax.mesh import make_mesh
from alexnet_jax.run import loop
from alexnet_jax.run.workdir import Workdir
from configs import quickstart
from tests.learning.poison import poison
from tests.run.commands import lines, narrow
from tests.run.commands import train as train_command

MARK = 10  # one more than there are classes


@pytest.mark.parametrize("step", [1, 7, 8, 36, 37, 40])
def test_one_picture(step: int, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gradient is no number at one step: before, at and after lines of the log, checkpoints, the end."""
    read = loop.feed

    def marked(*given: object) -> Iterator[Batch]:
        for done, batch in enumerate(read(*given), 1):
            labels = np.array(batch.labels)
            labels[3] = MARK if done == step and given[1] == "train" else labels[3]
            yield dataclasses.replace(batch, labels=jax.device_put(labels, batch.labels.sharding))

    monkeypatch.setattr(loop, "feed", marked)
    monkeypatch.setattr(step_module, "score", poison(MARK))
    sections = {"train": {"log_every": 4}, "checkpoint": {"every_steps": 20, "keep": 9}}
    config = narrow(quickstart.get_config(), data_dir, 40, **sections)
    workdir, packed = Workdir(str(tmp_path)), open_packed(config.data, 10)
    with pytest.raises(DivergedError) as error:
        loop.train(config, workdir, packed, make_mesh(1, 2))
    saved = (step - 1) // 18 * 18
    words = f"step {saved} was saved before" if saved else "nothing was saved"
    norms = ", ".join(f"{name} nan" for name in config.network.layers())
    pattern = rf"step {step}: loss \d\.\d+, norms of gradients {norms}; its pictures in .*; {words}; lower .*"
    assert re.fullmatch(pattern, str(error.value))
    report = json.loads((tmp_path / "diverged.json").read_text())
    order = TrainingOrder(config.seed, packed.images("train"), config.train.batch_size, fixed=False)
    assert report["rows"] == order(step - 1).tolist()
    assert report["step"] == step
    assert np.isfinite(report["loss"])
    assert set(report["gradient_norms"].values()) == {None}
    assert [line["step"] for line in workdir.metrics()] == list(range(4, step, 4))


def test_a_rate_that_is_too_high(data_dir: Path, tmp_path: Path) -> None:
    """By the command: one line, exit code 3; what was saved can be gone on from with a better rate."""
    flags = ("--config.train.steps=20", "--config.checkpoint.every_steps=1", "--config.train.log_every=1")
    rate = "--config.schedule.learning_rate=1e4"
    _, err = train_command(tmp_path, *flags, rate, data_dir=data_dir, code=DIVERGED)
    [line] = err.splitlines()
    found = re.match(r"error: step (\d+): loss .* norms of gradients conv1 .*; step (\d+) was saved", line)
    assert int(found[2]) == int(found[1]) - 1
    assert len(lines(tmp_path)) == int(found[2])
