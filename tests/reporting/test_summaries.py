"""Pictures and histograms of weights, against plain NumPy."""

import jax
import numpy as np
import pytest

from alexnet_jax.reporting.summaries import ENLARGED, GAP, histograms, kernel_picture, towers_here
from alexnet_jax.sharding.mesh import PARAMETERS, make_mesh, shard


def placed(values: np.ndarray, data: int, tower: int) -> jax.Array:
    return jax.device_put(values.astype(np.float32), shard(make_mesh(data, tower), PARAMETERS))


@pytest.mark.parametrize("shape", [(1, 1), (4, 1), (1, 2), (4, 2)], ids=str)
def test_each_tower_once(shape: tuple[int, int]) -> None:
    """Whatever device holds it, and how many have copies."""
    values = np.random.default_rng(0).normal(size=(2, 3, 7)).astype(np.float32)
    found = towers_here(placed(values, *shape))
    assert list(found) == [0, 1]
    np.testing.assert_array_equal(np.stack(list(found.values())), values)
    counted = dict(histograms({"fc6": {"kernel": placed(values, *shape)}}))
    assert list(counted) == ["fc6/kernel tower 0", "fc6/kernel tower 1"]
    for tower, buckets in enumerate(counted.values()):
        counts, edges = np.histogram(values[tower].astype(np.float64), 50)
        np.testing.assert_allclose(buckets[:, 0], edges[:-1], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(buckets[:, 1], edges[1:], rtol=1e-6, atol=1e-6)
        assert buckets[:, 2].sum() == values[tower].size
        assert np.abs(buckets[:, 2] - counts).sum() <= 2  # of what lies on an edge


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((1, 9)),
        np.ones((1, 9)),
        np.linspace(1, 1 + 1e-6, 9)[None],
        np.full((1, 9), 1e30),
        np.array([[np.nan, np.inf, -np.inf, 1, 2, 3, 4, 5, 6, 7, 8, 9]]),
    ],
    ids=["zeros", "ones", "nearly one", "huge", "no numbers"],
)
def test_values_that_leave_no_range(values: np.ndarray) -> None:
    """They are all counted, between finite ends; what is no number is left out."""
    [(_, buckets)] = histograms({"fc8": {"bias": placed(values, 1, 1)}})
    assert np.isfinite(buckets).all()
    assert (buckets[:, 0] < buckets[:, 1]).all()
    assert buckets[:, 2].sum() == 9


def test_only_what_is_no_number() -> None:
    [(_, buckets)] = histograms({"fc8": {"bias": placed(np.full((1, 3), np.nan), 1, 1)}})
    assert buckets[:, 2].sum() == 0


def test_kernels_as_a_picture() -> None:
    """Tower 0 above tower 1, each 2 rows of 16 and of 4 kernels; grey is 0, one scale for all."""
    kernel = np.random.default_rng(1).normal(size=(2, 5, 5, 3, 20))
    picture = kernel_picture(placed(kernel, 1, 2))
    across, high = 16 * (5 + GAP) - GAP, 2 * (5 + GAP) - GAP
    assert picture.dtype == np.uint8
    assert picture.shape == (ENLARGED * (2 * high + 3 * GAP), ENLARGED * across, 3)
    small = picture[::ENLARGED, ::ENLARGED].astype(int)
    wanted = 255 * (0.5 + kernel / (2 * np.abs(kernel).max()))
    for tower, number in ((0, 0), (0, 19), (1, 3), (1, 16)):
        y = tower * (high + 3 * GAP) + number // 16 * (5 + GAP)
        x = number % 16 * (5 + GAP)
        found = small[y : y + 5, x : x + 5]
        assert np.abs(found - wanted[tower, :, :, :, number]).max() <= 0.51
    assert (small[high : high + 3 * GAP] == 255).all()
    assert (kernel_picture(placed(np.zeros((1, 5, 5, 3, 1)), 1, 1)) == 128).all()


def test_kernels_that_are_no_picture() -> None:
    assert kernel_picture(placed(np.ones((1, 4, 4, 5, 5, 3, 2)), 1, 1)) is None
