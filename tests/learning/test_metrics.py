"""Losses and error counts against NumPy."""

import jax
import numpy as np
import pytest

from alexnet_jax.learning.metrics import Totals, all_finite, score


def test_score_against_numpy() -> None:
    rng = np.random.default_rng(0)
    scores = np.asarray(jax.nn.log_softmax(rng.normal(0, 2, (50, 12))))
    labels = rng.integers(-1, 12, 50)
    loss = top1 = top5 = 0.0
    for row, label in zip(scores[labels >= 0], labels[labels >= 0], strict=True):
        order = np.argsort(-row)
        loss -= row[label]
        top1 += label != order[0]
        top5 += label not in order[:5]
    totals = score(scores, labels)
    means = totals.means()
    assert totals.images == np.sum(labels >= 0) < 50
    wanted = np.array([loss, top1, top5]) / totals.images
    np.testing.assert_allclose(list(means.values()), wanted, rtol=1e-5)


def test_ties_count_by_their_chance() -> None:
    """Six classes share the last place of the top five: each is among them in one of six draws."""
    scores = np.log(np.array([[0.4, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05]]))
    wanted = {0: (0, 0), 1: (1, 0), 4: (1, 1 - 1 / 6), 9: (1, 1 - 1 / 6)}
    for label, errors in wanted.items():
        totals = score(scores, np.array([label]))
        np.testing.assert_allclose((totals.top1_errors, totals.top5_errors), errors, rtol=1e-6)
    uniform = score(np.log(np.full((1, 10), 0.1)), np.array([3]))
    np.testing.assert_allclose((uniform.top1_errors, uniform.top5_errors), (0.9, 0.5), rtol=1e-6)


def test_sums_add_up() -> None:
    scores, labels = np.log(np.full((4, 6), 1 / 6)), np.zeros(4, int)
    once = score(scores, labels)
    twice = (Totals.zero() + once + once).means()
    np.testing.assert_allclose(list(twice.values()), list(once.means().values()))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 7, 11])
def test_all_finite(bad: float, place: int) -> None:
    whole = np.linspace(-3e38, 3e38, 12, dtype=np.float32)
    assert all_finite({"a": whole, "step": np.int32(-5)})
    whole[place] = bad
    assert not all_finite({"step": np.int32(5), "a": whole.reshape(3, 4)})


def test_what_is_not_a_number_is_an_error() -> None:
    totals = score(np.full((3, 6), np.nan), np.zeros(3, int))
    assert (float(totals.top1_errors), float(totals.top5_errors)) == (3, 3)
