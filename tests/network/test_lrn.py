"""Local response normalisation against the paper's formula in NumPy float64."""

from collections.abc import Callable

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import numpy as jnp

from alexnet_jax.network.lrn import local_response_norm, map_norm
from alexnet_jax.sharding.platform import Form
from tests.network import reference

PAPER = (5, 2.0, 1e-4, 0.75, "cpu")
NORMS = {local_response_norm: reference.normalise, map_norm: reference.normalise_maps}


def value_and_gradient(
    a: np.ndarray, g: np.ndarray, parameters: tuple, norm: Callable = local_response_norm
) -> tuple[np.ndarray, np.ndarray]:
    def both(a: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        b, pull = jax.vjp(lambda a: norm(a, *parameters), a)
        return b, pull(g)[0]

    b, da = jax.jit(both)(a, g)
    return np.asarray(b), np.asarray(da)


def draw(shape: tuple[int, ...], scale: float, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return (scale * rng.normal(size=shape)).astype(dtype), rng.normal(size=shape).astype(dtype)


@settings(max_examples=20)  # each is compiled
@given(
    st.sampled_from(list(NORMS)),
    st.tuples(*(st.integers(1, most) for most in (2, 5, 5, 17))),
    st.sampled_from([1, 3, 5, 9]),
    st.sampled_from([1.0, 2.0]),
    st.sampled_from([1e-4, 0.1, 1.0]),  # the larger let neighbours matter
    st.sampled_from([0.75, 0.5, 1.3]),
    st.sampled_from([1e-6, 1e-2, 3.0, 1e3, 1e6]),
    st.sampled_from(["plain", "fast", "cpu"]),
)
def test_values_and_gradients(
    norm: Callable,
    shape: tuple[int, ...],
    size: int,
    k: float,
    alpha: float,
    beta: float,
    scale: float,
    form: Form,
) -> None:
    """Both kinds, over fewer maps or pixels than a window has and over more, of any magnitude."""
    parameters = (size, k, alpha, beta)
    a, g = draw(shape, scale)
    b, da = value_and_gradient(a, g, (*parameters, form), norm)
    wanted, back = NORMS[norm](np.float64(a), *parameters)
    roots = beta == 0.75 and form != "plain"  # others take powers
    np.testing.assert_allclose(b, wanted, rtol=1e-6 if roots else 1e-5)
    terms = np.abs(g * wanted / a).max()  # of whose difference a slope is what is left
    np.testing.assert_allclose(da, back(np.float64(g)), rtol=1e-5, atol=1e-5 * terms)


def test_windows_are_clipped_at_the_first_and_the_last_map() -> None:
    """One unit in every map, k = 0, alpha = beta = 1: each output is 1 over the maps in its window."""
    ones = np.ones((1, 1, 1, 7), np.float32)
    b, _ = value_and_gradient(ones, ones, (5, 0.0, 1.0, 1.0, "cpu"))
    np.testing.assert_allclose(1 / b.ravel(), [3, 4, 5, 5, 5, 4, 3], rtol=1e-6)


def test_bfloat16_is_summed_in_float32() -> None:
    parameters = (9, 1.0, 1.0, 0.75)
    a, g = (np.asarray(x, jnp.bfloat16) for x in draw((4, 5, 6, 32), scale=3.0))
    b, da = value_and_gradient(a, g, (*parameters, "cpu"))
    assert b.dtype == da.dtype == jnp.bfloat16
    # One rounding of the exact result to eight bits, half a unit of 2^-8: sums in bfloat16 would be far off.
    wanted, back = reference.normalise(np.float64(a), *parameters)
    np.testing.assert_allclose(b.astype(np.float64), wanted, rtol=2**-8 * 1.01)
    np.testing.assert_allclose(da.astype(np.float64), back(np.float64(g)), rtol=2**-8 * 1.01, atol=1e-5)


def test_only_the_input_is_kept_for_the_backward_pass() -> None:
    a, _ = draw((2, 5, 6, 16), scale=3.0)
    _, pull = jax.vjp(lambda a: local_response_norm(a, *PAPER), jnp.asarray(a))
    kept = [leaf for leaf in jax.tree.leaves(pull) if leaf.size > 1]
    assert [leaf.shape for leaf in kept] == [a.shape]
    np.testing.assert_array_equal(kept[0], a)


def test_the_compiled_passes_do_not_share_what_they_compute() -> None:
    """A root that two passes shared would be stored: each takes its own, two in each of three passes."""
    a, g = draw((2, 5, 6, 16), scale=3.0)

    def both(a: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        b, pull = jax.vjp(lambda a: local_response_norm(a, *PAPER), a)
        return b, pull(g)[0]

    text = jax.jit(both).lower(a, g).compile().as_text()
    assert text.count(" sqrt(") == 6
    assert "power(" not in text
