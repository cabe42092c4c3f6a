"""Max pooling against its definition in NumPy float64 and, to the bit, against XLA's own."""

from collections.abc import Callable
from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import numpy as jnp

from alexnet_jax.config.fields import Rounding
from alexnet_jax.network.pool import average_pool, max_pool
from tests.network import reference

fast_pool = partial(max_pool, form="fast")


def value_and_gradient(
    pool: Callable, x: np.ndarray, g: np.ndarray, window: int, stride: int, rounding: Rounding = "up"
) -> tuple[jax.Array, jax.Array]:
    def both(x: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        out, pull = jax.vjp(lambda x: pool(x, window, stride, rounding), x)
        return out, pull(g)[0]

    return jax.jit(both)(x, g)


def integers(low: int, high: int, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Whole numbers, so that sums of gradients are exact in any order."""
    return np.random.default_rng(0).integers(low, high, shape).astype(dtype)


@settings(max_examples=12)  # each is compiled twice
@given(
    st.integers(1, 5).flatmap(lambda window: st.tuples(st.just(window), st.integers(1, window))),
    st.tuples(st.integers(1, 13), st.integers(1, 13)),
    st.sampled_from([3, 1000]),  # nearly all windows have ties, or few
    st.sampled_from([np.float32, jnp.bfloat16]),
    st.sampled_from(["up", "down"]),
)
def test_every_bit_of_values_and_gradients(
    pool: tuple[int, int], sides: tuple[int, int], levels: int, dtype: type, rounding: Rounding
) -> None:
    """Maps smaller than a window too, with borders left over or not; ties go where XLA sends them."""
    x = integers(-levels, levels // 2, (2, *sides, 3), dtype)
    wanted, back = reference.pool(np.float64(x), *pool, rounding)
    g = integers(-9, 10, wanted.shape, dtype)
    for form in ("fast", "plain"):
        out, dx = value_and_gradient(partial(max_pool, form=form), x, g, *pool, rounding)
        assert out.dtype == dx.dtype == dtype
        np.testing.assert_array_equal(np.float64(out), wanted)
        np.testing.assert_array_equal(np.float64(dx), back(np.float64(g)))


@pytest.mark.parametrize("rounding", ["up", "down"])
def test_averages(rounding: Rounding) -> None:
    """Averages are of the pixels that there are: fewer at a border that is left over."""
    x = np.random.default_rng(0).normal(size=(2, 8, 7, 3)).astype(np.float32)
    for window, stride in ((3, 2), (2, 2), (3, 1), (9, 4)):
        wanted, back = reference.average(np.float64(x), window, stride, rounding)
        g = np.random.default_rng(1).normal(size=wanted.shape).astype(np.float32)
        out, dx = value_and_gradient(average_pool, x, g, window, stride, rounding)
        np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(dx, back(np.float64(g)), rtol=1e-5, atol=1e-6)


def test_a_tie_goes_to_the_first_row_and_in_it_to_the_first_column() -> None:
    x = np.array([[0, 0, 1], [1, 1, 1], [1, 0, 1]], np.float32).reshape(1, 3, 3, 1)
    _, dx = value_and_gradient(fast_pool, x, np.ones((1, 1, 1, 1), np.float32), 3, 2)
    np.testing.assert_array_equal(dx.reshape(3, 3), [[0, 0, 1], [0, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize(("window", "stride", "dtype"), [(3, 2, jnp.uint8), (17, 1, jnp.int32)])
def test_only_the_places_of_the_maxima_are_kept_for_the_backward_pass(
    window: int, stride: int, dtype: type
) -> None:
    x = jnp.zeros((2, 19, 19, 8))
    pull = jax.eval_shape(lambda x: jax.vjp(lambda x: fast_pool(x, window, stride), x)[1], x)
    side = (19 - window) // stride + 1
    kept = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(pull) if leaf.size > 1]
    assert kept == [((2, side, side, 8), dtype)]  # a byte numbers the 16 x 16 places of a window, no more


def test_the_compiled_gradient_has_no_scatter() -> None:
    x, g = jnp.zeros((2, 13, 13, 8)), jnp.zeros((2, 6, 6, 8))

    def compiled(pool: Callable) -> str:
        return jax.jit(lambda x, g: value_and_gradient(pool, x, g, 3, 2)).lower(x, g).compile().as_text()

    def found(text: str) -> list[str]:
        return [op for op in ("scatter(", "gather(", "reduce-window(") if op in text]

    assert found(compiled(fast_pool)) == []
    assert found(compiled(max_pool)) != []  # the names are those that this XLA prints
