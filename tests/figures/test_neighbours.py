"""The nearest are those that brute force finds."""

import numpy as np
import pytest

from alexnet_jax.figures import neighbours
from alexnet_jax.figures.neighbours import NEAREST, Nearest, find_nearest
from alexnet_jax.trained.features import last_hidden, make_features, split_features
from alexnet_jax.trained.opened import TrainedRun


def brute_force(queries: np.ndarray, vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """All distances at once, in float64."""
    far = np.linalg.norm(queries[:, None].astype(np.float64) - vectors[None].astype(np.float64), axis=2)
    order = np.argsort(far, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(far, order, axis=1)


@pytest.mark.parametrize("block", [7, 1000])
def test_against_brute_force(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown in pieces of any size, with vectors that are there twice, of which the first counts."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 20)).astype(np.float32)
    vectors[200:250] = vectors[50:100]
    queries = np.concatenate([vectors[60:65], rng.normal(size=(4, 20)).astype(np.float32)])
    monkeypatch.setattr(neighbours, "BLOCK", block * 20)
    nearest = Nearest(queries, 6)
    for piece in np.split(vectors, [1, 100, 101, 299]):
        nearest.show(piece)
    places, far = brute_force(queries, vectors, 6)
    np.testing.assert_array_equal(nearest.places, places)
    np.testing.assert_allclose(nearest.distances, far, rtol=1e-12, atol=1e-12)
    assert places[0, :2].tolist() == [60, 210]


@pytest.mark.slow
def test_over_a_whole_split(opened: TrainedRun) -> None:
    """Every training picture is compared, the last ones too, which do not fill a batch."""
    stage, rows = last_hidden(opened.config.network), np.array([3, 1, 4])
    nearest = find_nearest(opened, rows, NEAREST)
    vectors = np.concatenate([made for made, _ in split_features(opened, stage, "train")])
    queries = make_features(opened, stage, 3)(opened.packed.read("validation", rows)[0])
    assert nearest.shown == len(vectors) == opened.packed.images("train")
    places, far = brute_force(queries, vectors, NEAREST)
    np.testing.assert_array_equal(nearest.places, places)
    np.testing.assert_allclose(nearest.distances, far, rtol=1e-9)


@pytest.mark.slow
def test_the_figure(opened: TrainedRun) -> None:
    """A line for each picture: itself, then the training pictures that were found, with their distances."""
    rows = np.array([3, 1])
    nearest, names = find_nearest(opened, rows, NEAREST), opened.packed.class_names
    drawn = neighbours.neighbours(opened, rows).axes
    pictures, labels = opened.packed.read("validation", rows)
    for line in range(2):
        axes = drawn[line * (1 + NEAREST) : (line + 1) * (1 + NEAREST)]
        found, kinds = opened.packed.read("train", nearest.places[line])
        shown = [place.images[0].get_array() for place in axes]
        np.testing.assert_array_equal(np.stack(shown), np.concatenate([pictures[line : line + 1], found]))
        words = [place.get_xlabel() for place in axes]
        assert words[0] == names[labels[line]]
        for word, kind, far in zip(words[1:], kinds, nearest.distances[line], strict=True):
            assert word.startswith(names[kind]) and float(word.split()[-1]) == pytest.approx(far, rel=5e-3)
