"""The rates of every layer: the paper's rule of a stalled validation error, and the authors' tables."""

import dataclasses

import numpy as np
import pytest

from alexnet_jax.config.building import build
from alexnet_jax.config.fields import LAYERS, Config
from alexnet_jax.errors import ConfigError
from alexnet_jax.learning.schedule import learning_rate, learning_rates, make_pace, plateau_drops
from configs import imagenet
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


def recipe(names: str) -> Config:
    return build(imagenet.get_config(names).to_dict())


def rates(config: Config, epoch: float) -> tuple[float, float, float, float]:
    """The rates of conv1's weights, all other weights, conv1's biases, all other biases."""
    found = learning_rates(config.schedule, epoch, config.train.epochs, [])
    assert list(found) == list(LAYERS)
    conv1, *others = (tuple(map(float, found[name].values())) for name in LAYERS)
    assert set(others) == {others[0]}
    return conv1[0], others[0][0], conv1[1], others[0][1]


# The authors' changes: the epoch, the rate of all layers but conv1, conv1's own, the colour noise.
BY_HAND = {
    "hand_145_2010": """
        0 1e-2 1e-2 1 | 23 1e-3 1e-3 1 | 51 1e-4 1e-4 1 | 68 1e-4 1e-5 0 | 72 1e-4 0 0 | 78 1e-5 0 0 | 93""",
    "hand_145": """
        0 1e-2 1e-2 1 | 25 1e-3 1e-3 1 | 51 1e-4 1e-4 1 | 67 1e-4 1e-5 0 | 72 1e-4 0 0 | 79 1e-5 0 0 | 91""",
    "hand_145_half": """
        0 1e-2 1e-2 1 | 20 1e-3 1e-3 1 | 48 1e-4 1e-4 1 | 66 1e-4 1e-5 0 | 72 1e-4 0 0 | 96""",
    "hand_147": """
        0 1e-2 1e-2 1 | 23 1e-3 1e-3 1 | 51 1e-4 1e-4 1 | 79 1e-5 0 0 | 90""",
    "hand_148": """
        0 1e-2 1e-2 1 | 22 1e-3 1e-3 1 | 44 1e-4 1e-4 1 | 69 1e-4 1e-5 0 | 73 1e-4 0 0 | 86 1e-5 0 0 | 97""",
    "hand_150": """
        0 1e-2 1e-2 1 | 25 1e-3 1e-3 1 | 49 1e-4 1e-4 1 | 66 1e-4 1e-5 0 | 72 1e-4 0 0 | 79 1e-5 0 0 | 92""",
}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_authors_tables(name: str) -> None:
    """Every tenth of an epoch, weights and biases; biases at twice the rate, which stays."""
    config = recipe(f"source,{name}")
    *rows, stop = BY_HAND[name].split("|")
    assert config.train.epochs == float(stop)
    for tenth in range(10 * int(stop)):
        passed = [row.split() for row in rows if 10 * int(row.split()[0]) <= tenth]
        others, conv1, noise = map(float, passed[-1][1:])
        np.testing.assert_allclose(rates(config, tenth / 10), (conv1, others, 0.02, 0.02), rtol=1e-6)
        assert make_pace(config, tenth / 10, config.train.epochs, []).colour == noise


def test_pre_training_and_fine_tuning() -> None:
    """#146: on more classes, convolutions slower than the rest; then conv1 ahead, frozen, the noise's end."""
    config = recipe("source,six_convs,pretrain")
    assert config.train.epochs == 8.11
    for epoch, others in ((0, 0.01), (5.9, 0.01), (6, 0.001), (8.1, 0.001)):
        layers = learning_rates(config.schedule, epoch, 8.11, [])
        found = [layers[name]["kernel"] for name in LAYERS]
        np.testing.assert_allclose(found, [0.001] * 6 + [others] * 3, rtol=1e-6)
        assert make_pace(config, epoch, 8.11, []).colour == 1
    with pytest.raises(
        ConfigError, match=r"init_from=\? stands for a run to begin with: say --config\.init_from"
    ):
        recipe("source,six_convs,fine_tune")
    values = imagenet.get_config("source,six_convs,fine_tune").to_dict()
    config = build(values | {"init_from": "elsewhere"})
    assert config.train.epochs == 54
    for epoch, conv1, others, noise in (
        (0, 1e-4, 1e-3, 1),
        (6.9, 1e-4, 1e-3, 1),
        (7, 0, 1e-3, 1),
        (22, 0, 1e-4, 1),
        (38, 0, 1e-4, 0),
        (42, 0, 1e-5, 0),
        (53.9, 0, 1e-5, 0),
    ):
        np.testing.assert_allclose(rates(config, epoch), (conv1, others, 0.002, 0.002), rtol=1e-6)
        assert make_pace(config, epoch, 54, []).colour == noise


def test_source_is_145() -> None:
    """But for what is known of its result."""
    source, by_hand = recipe("source"), recipe("source,hand_145")
    assert dataclasses.replace(by_hand, expected=source.expected) == source


def test_dexp() -> None:
    """Weights .01 by 250 in 4 levels, each 250^(1/3) below the one before; biases .02 by 10 in 2."""
    config = recipe("dexp")
    third = 250 ** (1 / 3)
    for epoch, levels, bias in (
        (0, 0, 0.02),
        (22.4, 0, 0.02),
        (22.5, 1, 0.02),
        (45, 2, 0.002),
        (67.5, 3, 0.002),
    ):
        weight = 0.01 / third**levels
        np.testing.assert_allclose(rates(config, epoch), (weight, weight, bias, bias), rtol=1e-6)
    assert rates(config, 90)[0] == pytest.approx(0.01 / 250)
    short = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=40.0))
    np.testing.assert_allclose(rates(short, 30), rates(config, 70), rtol=1e-6)


def test_polynomial_and_warm_up() -> None:
    schedule = dataclasses.replace(PLATEAU, kind="polynomial", power=2.0, warmup_epochs=2.0)
    for epoch, wanted in ((0, 0), (1, 0.5 * 0.99**2), (2, 0.98**2), (50, 0.25), (100, 0)):
        assert learning_rate(schedule, epoch, 100, []) == pytest.approx(0.01 * wanted)


def test_biases_of_their_own_kind_warm_up_too() -> None:
    biases = dataclasses.replace(PLATEAU.biases, kind="drops", ratio=2.0)
    schedule = dataclasses.replace(PLATEAU, warmup_epochs=2.0, biases=biases)
    found = learning_rates(schedule, 0.5, 90, [])["conv1"]
    assert found == pytest.approx({"kernel": 0.0025, "bias": 0.005}, rel=1e-6)


def test_rates_of_layers_in_any_order() -> None:
    own = (("conv1", 9.0, 0.0), ("conv1", 3.0, 1e-4))
    schedule = dataclasses.replace(PLATEAU, layers=own)
    found = [learning_rates(schedule, epoch, 90, [])["conv1"]["kernel"] for epoch in (0, 3, 9)]
    np.testing.assert_allclose(found, (0.01, 1e-4, 0), rtol=1e-6)


def test_the_paper_has_one_rate() -> None:
    """Equal for all layers, biases too, and falling with the plateau."""
    config = build(PAPER)
    for errors, rate in (([], 0.01), ([0.5] * 4, 0.001)):
        for found in learning_rates(config.schedule, 5, 90, errors).values():
            assert found == pytest.approx({"kernel": rate, "bias": rate}, rel=1e-6)
    assert make_pace(config, 89, 90, []).colour == 1
