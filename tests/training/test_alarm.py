"""A loss that stays at ln(classes) is spoken of once."""

import dataclasses
import math
from pathlib import Path

import pytest

from alexnet_jax.config.fields import Config
from alexnet_jax.data.batches import open_packed
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.training.alarm import StallAlarm
from alexnet_jax.training.loop import train
from configs import quickstart
from tests.commands.running import narrow as narrow_run

GUESSING = math.log(10)


@pytest.fixture
def patient(narrow: Config) -> Config:
    """Ten classes; warned after 300 steps."""
    return dataclasses.replace(narrow, train=dataclasses.replace(narrow.train, stall_steps=300))


@pytest.mark.parametrize(
    ("losses", "warned"),
    [
        ([GUESSING] * 6, [300]),
        ([GUESSING, 7.0, GUESSING, 2.29], [300]),  # worse than guessing is no progress either
        ([GUESSING, 2.2, GUESSING, GUESSING], []),
        ([2.2, 1.0, *[GUESSING] * 4], [500]),  # what had learnt can collapse
        ([GUESSING] * 4 + [2.0] + [GUESSING] * 4, [300, 800]),
    ],
)
def test_when_it_speaks(patient: Config, losses: list[float], warned: list[int]) -> None:
    """One loss for every 100 steps; a run that goes on from its log says nothing twice."""
    steps = [100 * number for number in range(1, len(losses) + 1)]
    whole = StallAlarm(patient, [])
    assert [step for step, loss in zip(steps, losses, strict=True) if whole(step, loss)] == warned
    log = [{"split": "train", "step": step, "loss": loss} for step, loss in zip(steps, losses, strict=True)]
    validated = [{"split": "validation", "step": line["step"], "loss": 1.0} for line in log]
    for half in range(len(log)):
        resumed = StallAlarm(patient, [*log[:half], *validated[:half]])  # and validation is not heard
        later = [line["step"] for line in log[half:] if resumed(line["step"], line["loss"])]
        assert later == [step for step in warned if step > 100 * half]


def test_it_can_be_switched_off(narrow: Config) -> None:
    silent = dataclasses.replace(narrow, train=dataclasses.replace(narrow.train, stall_steps=0))
    assert not any(StallAlarm(silent, [])(step, GUESSING) for step in (1, 10**6))


def test_it_names_what_the_config_can_be_guilty_of(patient: Config) -> None:
    text = StallAlarm(patient, [])(300, GUESSING)
    assert "no better than guessing: it is 2.303, guessing among 10 classes has ln(10) = 2.303" in text
    first = [alarm.splitlines()[1] for alarm in (text, StallAlarm(patient, [])(300, 57.0))]
    assert "biases" in first[0] and "is too high a rate" in first[1]
    assert "biases of conv2, conv4, conv5, fc6, fc7 are large: try --config.network.conv2.bias=0.1" in text
    assert "0.01 is too high a rate: try --config.schedule.learning_rate=0.001" in text
    assert "are small" not in text  # the narrow network's deviations are above 0.01


@pytest.mark.slow
@pytest.mark.usefixtures("half_optimised")
def test_a_run_that_does_not_learn(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sections = {"schedule": {"learning_rate": 1e-9}}
    config = narrow_run(quickstart.get_config(), data_dir, 30, **sections)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, log_every=5, stall_steps=10))
    train(config, Workdir(str(tmp_path)), open_packed(config.data, 10), make_mesh(1, 2))
    assert capsys.readouterr().out.count("warning: for 10 steps the training loss was no better") == 1
