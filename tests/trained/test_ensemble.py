"""Weights of an ensemble, on probabilities made by hand."""

import dataclasses

import numpy as np
import pytest

from alexnet_jax.config.building import build
from alexnet_jax.errors import RefusedError
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.trained.ensemble import evaluate_together, fit_weights, mean_of, metrics_of
from configs.imagenet import PAPER

IMAGES, CLASSES = 400, 12


def network(rng: np.random.Generator, labels: np.ndarray, skill: float) -> np.ndarray:
    """Log-probabilities that lean to the truth by `skill`."""
    scores = rng.normal(size=(IMAGES, CLASSES)) + skill * (labels[:, None] == np.arange(CLASSES))
    return (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))).astype(np.float32)


def test_the_mean_and_its_figures() -> None:
    answers = np.log(np.float32([[[0.7, 0.2, 0.1]], [[0.1, 0.6, 0.3]]]))
    mean = mean_of(answers, np.array([1.0, 3.0]))
    np.testing.assert_allclose(np.exp(mean), [[0.25, 0.5, 0.25]], rtol=1e-6)
    found = metrics_of(mean, np.array([2], np.int32))
    assert found["loss"] == pytest.approx(np.log(4))
    assert found["top1_error"] == 1
    tied = metrics_of(np.log(np.float32([[0.4, 0.4, 0.2]])), np.array([0], np.int32))
    assert tied["top1_error"] == pytest.approx(0.5)  # as often wrong as a draw would be


def test_a_network_that_is_very_sure() -> None:
    """A probability that rounds to 0 keeps its loss and rank, alone and beside a network without weight."""
    answers = np.float32([[[0, *range(-100, -110, -1)]], [[0, *range(-100, -110, -1)]]])
    labels = np.array([1], np.int32)
    for found in (answers[0], mean_of(answers, np.ones(2)), mean_of(answers, np.array([1.0, 0.0]))):
        assert metrics_of(found, labels) == pytest.approx({"loss": 100, "top1_error": 1, "top5_error": 0})


def test_fitted_weights() -> None:
    """Two that know much and one that knows the contrary: it is left out, and there are fewer errors."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, IMAGES).astype(np.int32)
    answers = np.stack([network(rng, labels, skill) for skill in (2.0, 1.5, -3.0)])
    weights = fit_weights(answers, labels)
    assert weights.sum() == pytest.approx(1) and weights[2] < 0.02 < weights[1] < weights[0]
    even, fitted = (metrics_of(mean_of(answers, w), labels) for w in (np.ones(3), weights))
    assert fitted["top5_error"] < even["top5_error"]


def test_errors_come_before_loss() -> None:
    """One of two pictures is sixth for both together; more of the first network fixes that, at some loss."""
    first, second = np.full((2, 12), 1e-6), np.array([[0.15] * 5 + [0.2 / 6] * 6 + [0.05], [0.1 / 11] * 12])
    first[:, 0], first[:, 11] = (0.91, 0.999), (0.09, 1e-3)
    second[1, 11] = 0.9
    answers, labels = np.log(np.float32([first, second])), np.array([11, 11], np.int32)
    even, fitted = (
        metrics_of(mean_of(answers, w), labels) for w in (np.ones(2), fit_weights(answers, labels))
    )
    assert (even["top5_error"], fitted["top5_error"]) == (0.5, 0)
    assert fitted["loss"] > even["loss"]


def test_members_that_saw_other_pictures() -> None:
    """Two of whatever kind, whose labels differ."""

    @dataclasses.dataclass
    class One:
        answers: tuple[np.ndarray, np.ndarray]
        step, workdir, config = 1, Workdir("runs/one"), build(PAPER)

    with pytest.raises(RefusedError, match="was evaluated on other pictures than"):
        answers = np.zeros((2, 1000), np.float32)
        evaluate_together([One((answers, np.array(labels))) for labels in ([1, 2], [2, 1])], fitted=False)


def test_even_weights_stay_where_nothing_is_better() -> None:
    labels = np.zeros(8, np.int32)
    same = np.full((2, 8, 2), np.log(0.5), np.float32)
    np.testing.assert_allclose(fit_weights(same, labels), [0.5, 0.5])
