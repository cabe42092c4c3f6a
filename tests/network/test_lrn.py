"""Local response normalisation against the paper's formula in NumPy float64."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from alexnet_jax.network.lrn import local_response_norm, map_norm
from tests.network import reference

PAPER = (5, 2.0, 1e-4, 0.75)
PARAMETERS = [
    PAPER,
    (5, 2.0, 0.5, 0.75),  # alpha large enough that the neighbours matter
    (1, 1.0, 0.5, 0.75),
    (3, 1.0, 1.0, 0.75),
    (9, 2.0, 0.1, 0.75),
    (5, 1.0, 0.5, 0.5),
    (3, 2.0, 0.5, 1.3),
]
MAPS = [1, 4, 16]  # fewer than a window of 5 or 9, and more


def window(i: int, maps: int, size: int) -> range:
    """The paper's j, from max(0, i - n/2) to min(N - 1, i + n/2), both included."""
    return range(max(0, i - size // 2), min(maps - 1, i + size // 2) + 1)


def from_the_paper(a: np.ndarray, size: int, k: float, alpha: float, beta: float) -> np.ndarray:
    """b_i of section 3.3, map by map, for a [..., N] in float64."""
    a = np.asarray(a, np.float64)
    b = np.empty_like(a)
    for i in range(a.shape[-1]):
        squares = sum(a[..., j] ** 2 for j in window(i, a.shape[-1], size))
        b[..., i] = a[..., i] / (k + alpha * squares) ** beta
    return b


def gradient(a: np.ndarray, g: np.ndarray, size: int, k: float, alpha: float, beta: float) -> np.ndarray:
    """g times the Jacobian db_i / da_j, entry by entry in float64."""
    a, g = np.asarray(a, np.float64), np.asarray(g, np.float64)
    maps = a.shape[-1]
    jacobian = np.zeros((*a.shape, maps))
    for i in range(maps):
        d = k + alpha * sum(a[..., j] ** 2 for j in window(i, maps, size))
        for j in window(i, maps, size):
            jacobian[..., i, j] = (i == j) * d**-beta
            jacobian[..., i, j] -= a[..., i] * beta * d ** (-beta - 1) * alpha * 2 * a[..., j]
    return np.einsum("...i,...ij->...j", g, jacobian)


def value_and_gradient(a: np.ndarray, g: np.ndarray, parameters: tuple) -> tuple[np.ndarray, np.ndarray]:
    def both(a: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        b, pull = jax.vjp(lambda a: local_response_norm(a, *parameters), a)
        return b, pull(g)[0]

    b, da = jax.jit(both)(a, g)
    return np.asarray(b), np.asarray(da)


def draw(shape: tuple[int, ...], scale: float, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return (scale * rng.normal(size=shape)).astype(dtype), rng.normal(size=shape).astype(dtype)


@pytest.mark.parametrize("maps", MAPS)
@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
def test_values_and_gradients(parameters: tuple, maps: int):
    a, g = draw((2, 3, 4, maps), scale=3.0)
    b, da = value_and_gradient(a, g, parameters)
    np.testing.assert_allclose(b, from_the_paper(a, *parameters), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(da, gradient(a, g, *parameters), rtol=1e-5, atol=1e-5)


def test_windows_are_clipped_at_the_first_and_the_last_map():
    # One unit in every map, k = 0, alpha = beta = 1: each output is 1 over the maps in its window.
    b, _ = value_and_gradient(
        np.ones((1, 1, 1, 7), np.float32), np.ones((1, 1, 1, 7), np.float32), (5, 0.0, 1.0, 1.0)
    )
    np.testing.assert_allclose(1 / b.ravel(), [3, 4, 5, 5, 5, 4, 3], rtol=1e-6)


@pytest.mark.parametrize("centre", [0, 1, 6, 11, 12])
def test_a_map_reaches_its_neighbours_and_no_others(centre: int):
    a, _ = draw((1, 1, 1, 13), scale=1.0)
    g = np.zeros_like(a)
    g[..., centre] = 1
    _, da = value_and_gradient(a, g, (5, 2.0, 0.5, 0.75))
    assert set(np.flatnonzero(da)) == set(range(max(0, centre - 2), min(12, centre + 2) + 1))


def test_images_and_places_do_not_meet():
    a, g = draw((2, 3, 3, 8), scale=3.0)
    b, da = value_and_gradient(a, g, (5, 1.0, 1.0, 0.75))
    alone = value_and_gradient(a[1:, 2:, 1:2], g[1:, 2:, 1:2], (5, 1.0, 1.0, 0.75))
    np.testing.assert_allclose(b[1:, 2:, 1:2], alone[0], rtol=1e-6)
    np.testing.assert_allclose(da[1:, 2:, 1:2], alone[1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1e3, 1e6])
def test_accurate_for_any_size_of_activation(scale: float):
    # atol is nought for the values: what is small must be as exact as what is large.
    parameters = (5, 1.0, 1.0, 0.75)
    a, g = draw((2, 3, 4, 16), scale=scale)
    b, da = value_and_gradient(a, g, parameters)
    np.testing.assert_allclose(b, from_the_paper(a, *parameters), rtol=1e-6)
    expected = gradient(a, g, *parameters)
    np.testing.assert_allclose(da, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_bfloat16_is_summed_in_float32():
    parameters = (9, 1.0, 1.0, 0.75)
    a, g = (np.asarray(x, jnp.bfloat16) for x in draw((4, 5, 6, 32), scale=3.0))
    b, da = value_and_gradient(a, g, parameters)
    assert b.dtype == da.dtype == jnp.bfloat16
    # One rounding of the exact result to eight bits, half a unit of 2^-8: sums in bfloat16 would be far off.
    np.testing.assert_allclose(b.astype(np.float64), from_the_paper(a, *parameters), rtol=2**-8 * 1.01)
    expected = gradient(a, g, *parameters)
    np.testing.assert_allclose(da.astype(np.float64), expected, rtol=2**-8 * 1.01, atol=1e-5)


def test_only_the_input_is_kept_for_the_backward_pass():
    a, _ = draw((2, 5, 6, 16), scale=3.0)
    _, pull = jax.vjp(lambda a: local_response_norm(a, *PAPER), jnp.asarray(a))
    kept = [leaf for leaf in jax.tree.leaves(pull) if leaf.size > 1]
    assert [leaf.shape for leaf in kept] == [a.shape]
    np.testing.assert_array_equal(kept[0], a)


def test_the_compiled_passes_do_not_share_what_they_compute():
    # A root that two passes shared would be a stored array: each takes its own, two in each of three passes.
    a, g = draw((2, 5, 6, 16), scale=3.0)

    def both(a: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        b, pull = jax.vjp(lambda a: local_response_norm(a, *PAPER), a)
        return b, pull(g)[0]

    text = jax.jit(both).lower(a, g).compile().as_text()
    assert text.count(" sqrt(") == 6
    assert "power(" not in text


@pytest.mark.parametrize("size", [1, 3, 5])
def test_within_maps(size: int):
    """The source's second kind: values against NumPy's loops, gradients against differences of them."""
    parameters = (size, 1.0, 2.0, 0.75)
    a, g = draw((1, 4, 6, 2), scale=2.0)

    def wanted(a: np.ndarray) -> np.ndarray:
        return reference.normalise_maps(np.asarray(a, np.float64), *parameters)[0]

    b, pull = jax.vjp(lambda a: map_norm(a, *parameters), a)
    np.testing.assert_allclose(b, wanted(a), rtol=1e-5)
    slopes = np.empty(a.shape)
    for place in np.ndindex(a.shape):
        nudge = np.zeros(a.shape)
        nudge[place] = 1e-5
        slopes[place] = np.sum(g * (wanted(a + nudge) - wanted(a - nudge))) / 2e-5
    np.testing.assert_allclose(pull(g)[0], slopes, rtol=1e-4, atol=1e-5)
