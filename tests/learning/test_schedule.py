"""Fixed drops, and the paper's rule of a stalled validation error."""

import dataclasses

import pytest

from alexnet_jax.config import build
from alexnet_jax.learning.schedule import learning_rate, plateau_drops
from configs.imagenet import PAPER

PLATEAU = dataclasses.replace(build(PAPER).schedule, patience=2)
DROPS = dataclasses.replace(PLATEAU, kind="drops", drops=(25.0, 51.0))


@pytest.mark.parametrize(
    ("epoch", "rate"), [(0, 1e-2), (24.99, 1e-2), (25, 1e-3), (50.9, 1e-3), (51, 1e-4), (90, 1e-4)]
)
def test_fixed_drops(epoch: float, rate: float) -> None:
    assert learning_rate(DROPS, epoch, 90, [0.5]) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("errors", "drops"),
    [
        ([], 0),
        ([0.9, 0.8, 0.7], 0),
        ([0.9, 0.8, 0.8], 0),  # stalled once
        ([0.9, 0.8, 0.8, 0.81], 1),  # twice
        ([0.9, 0.8, 0.8, 0.79, 0.8], 0),  # a new best starts anew
        ([0.9, 0.8, 0.8, 0.8, 0.8, 0.8], 2),
        ([0.9, 0.8, 0.8, 0.8, 0.7, 0.71, 0.7], 2),
        ([0.9] * 20, 3),  # never more than three
    ],
)
def test_plateau(errors: list[float], drops: int) -> None:
    assert plateau_drops(errors, patience=2, max_drops=3) == drops
    assert learning_rate(PLATEAU, 1, 90, errors) == pytest.approx(0.01 / 10**drops)
