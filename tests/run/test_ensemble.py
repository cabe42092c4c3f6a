"""Weights of an ensemble, on probabilities made by hand."""

import numpy as np
import pytest

from alexnet_jax.run.ensemble import figures, fit_weights, mean_of

IMAGES, CLASSES = 400, 12


def network(rng: np.random.Generator, labels: np.ndarray, skill: float) -> np.ndarray:
    """Probabilities that lean to the truth by `skill`."""
    scores = rng.normal(size=(IMAGES, CLASSES)) + skill * (labels[:, None] == np.arange(CLASSES))
    chances = np.exp(scores)
    return (chances / chances.sum(axis=1, keepdims=True)).astype(np.float32)


def test_the_mean_and_its_figures() -> None:
    one, two = np.float32([[0.7, 0.2, 0.1]]), np.float32([[0.1, 0.6, 0.3]])
    mean = mean_of([one, two], np.array([1.0, 3.0]))
    np.testing.assert_allclose(mean, [[0.25, 0.5, 0.25]], rtol=1e-6)
    found = figures(mean, np.array([2], np.int32))
    assert found["loss"] == pytest.approx(np.log(4))
    assert found["top1_error"] == 1
    tied = figures(np.float32([[0.4, 0.4, 0.2]]), np.array([0], np.int32))
    assert tied["top1_error"] == pytest.approx(0.5)  # as often wrong as a draw would be


def test_a_chance_of_nothing_is_a_finite_loss() -> None:
    assert np.isfinite(figures(np.float32([[1.0, 0.0]]), np.array([1], np.int32))["loss"])


def test_fitted_weights() -> None:
    """Two that know much and one that knows the contrary: it is left out, and there are fewer errors."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, IMAGES).astype(np.int32)
    chances = [network(rng, labels, skill) for skill in (2.0, 1.5, -3.0)]
    weights = fit_weights(chances, labels)
    assert weights.sum() == pytest.approx(1) and weights[2] < 0.02 < weights[1] < weights[0]
    even, fitted = (figures(mean_of(chances, w), labels) for w in (np.ones(3), weights))
    assert fitted["top5_error"] < even["top5_error"]


def test_even_weights_stay_where_nothing_is_better() -> None:
    labels = np.zeros(8, np.int32)
    same = np.full((8, 2), 0.5, np.float32)
    np.testing.assert_allclose(fit_weights([same, same], labels), [0.5, 0.5])
