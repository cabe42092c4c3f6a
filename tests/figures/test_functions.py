"""Activations, gradients and LRN as drawn, against the formulas in float64."""

import dataclasses
import itertools
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from alexnet_jax.config.fields import Config
from alexnet_jax.figures.functions import functions, lrn_responses, unit
from configs import four_layers, imagenet
from tests.figures.untrained import recipe, stateless


def formulas(x: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Values and gradients."""
    sigmoid = 1 / (1 + np.exp(-x))
    return {
        "ReLU": (np.maximum(x, 0), (x > 0).astype(float)),
        "tanh": (np.tanh(x), 1 - np.tanh(x) ** 2),
        "sigmoid": (sigmoid, sigmoid * (1 - sigmoid)),
    }


def normalised(a: np.ndarray, size: int, k: float, alpha: float, beta: float) -> np.ndarray:
    """Section 3.3, map by map."""
    windows = [a[max(0, i - size // 2) : i + size // 2 + 1] for i in range(len(a))]
    return a / (k + alpha * np.array([np.sum(window**2) for window in windows])) ** beta


def test_curves_are_the_formulas(narrow: Config, tmp_path: Path) -> None:
    """Named, told apart without colour, and the run's own is thicker."""
    network = dataclasses.replace(narrow.network, activation="tanh")
    figure = functions(stateless(dataclasses.replace(narrow, network=network), tmp_path))
    left, right, _ = figure.axes
    for axes, part in ((left, 0), (right, 1)):
        curves = {line.get_label(): line for line in axes.lines if line.get_label()[0] != "_"}
        at = curves["ReLU"].get_xdata().astype(np.float64)
        for name, wanted in formulas(at).items():
            np.testing.assert_allclose(curves[name].get_ydata(), wanted[part], atol=1e-6)
        assert len({line._unscaled_dash_pattern for line in curves.values()}) == 3  # nothing public says it
        assert max(curves, key=lambda name: curves[name].get_linewidth()) == "tanh"
    assert figure.get_suptitle().startswith(
        "This run's activation is tanh, the thicker curve; LRN is in conv1"
    )
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["ReLU", "tanh", "sigmoid"]


@pytest.mark.parametrize(
    ("module", "variant", "alpha"),
    [(imagenet, "paper", 1e-4), (imagenet, "source", 2e-5), (four_layers, "lrn", 1e-3 / 9)],
)
def test_bars_are_the_formula(module: ModuleType, variant: str, alpha: float, tmp_path: Path) -> None:
    """Bars have the run's constants; alone the strong response is as much as k."""
    config = recipe(module, variant)
    lrn, figure = config.network.lrn, functions(stateless(config, tmp_path))
    axes = figure.axes[2]
    before, after = ([bar.get_height() for bar in bars] for bars in axes.containers)
    row, _ = lrn_responses(lrn)
    np.testing.assert_allclose(before, row)
    wanted = normalised(row.astype(np.float64), lrn.size, lrn.k, alpha, lrn.beta)
    np.testing.assert_allclose(after, wanted, rtol=1e-5)
    assert alpha * max(before) ** 2 == pytest.approx(lrn.k)
    assert f"alpha = {alpha:g}" in axes.get_title("left")


def test_what_groups_show(narrow: Config) -> None:
    """Groups do not see each other; a strong neighbour holds a weak one down, and strong ones each other."""
    lrn = narrow.network.lrn
    before, after = lrn_responses(lrn)
    filled = np.flatnonzero(before)
    groups = np.split(filled, np.flatnonzero(np.diff(filled) > 1) + 1)
    assert [len(group) for group in groups] == [1, 1, 5, 5]
    assert all(b[0] - a[-1] > lrn.size // 2 for a, b in itertools.pairwise(groups))
    weak, strong, beside, among = (after[group] for group in groups)
    assert strong[0] == pytest.approx(unit(lrn) / (2 * lrn.k) ** lrn.beta)
    assert (beside[[0, 1, 3, 4]] < weak[0]).all() and (among < beside[2]).all()


def test_a_run_without_normalisation(tmp_path: Path) -> None:
    figure = functions(stateless(recipe(imagenet, "no_lrn"), tmp_path))
    assert figure.get_suptitle().endswith("; it has no LRN")


def test_alpha_of_nothing(narrow: Config) -> None:
    """LRN then divides all by the same."""
    before, after = lrn_responses(dataclasses.replace(narrow.network.lrn, alpha=0.0))
    np.testing.assert_allclose(after, before / 2**0.75, rtol=1e-6)
