"""Max pooling against its definition in NumPy float64 and, to the bit, against XLA's own."""

from collections.abc import Callable

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

from alexnet_jax.network.pool import max_pool

# Window, stride, height, width: the paper's 3/2, then others; borders left over or not.
CASES = [
    (3, 2, 13, 13),
    (3, 2, 12, 9),
    (3, 2, 3, 4),
    (2, 2, 8, 9),
    (3, 3, 11, 9),
    (1, 1, 3, 4),
    (2, 1, 5, 6),
    (5, 2, 11, 12),
    (4, 3, 12, 13),
]


def from_the_definition(
    x: np.ndarray, draw: Callable, window: int, stride: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maxima, a gradient drawn for them, and what it gives for x: window by window in float64."""
    x = np.asarray(x, np.float64)
    batch, height, width, maps = x.shape
    rows, columns = (1 + int(np.ceil((n - window) / stride)) for n in (height, width))
    out, dx = np.empty((batch, rows, columns, maps)), np.zeros_like(x)
    g = draw(out.shape)
    for b, r, c, m in np.ndindex(out.shape):
        top, left = r * stride, c * stride
        seen = x[b, top : top + window, left : left + window, m]
        row, column = divmod(int(np.argmax(seen)), seen.shape[1])  # the first, row by row
        out[b, r, c, m] = seen[row, column]
        dx[b, top + row, left + column, m] += g[b, r, c, m]
    return out, g, dx


def xla_pool(x: jax.Array, window: int, stride: int) -> jax.Array:
    beyond = (int(np.ceil((n - window) / stride)) * stride + window - n for n in x.shape[1:3])
    ends = ((0, 0), *((0, n) for n in beyond), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, window, window, 1), (1, stride, stride, 1), ends)


def value_and_gradient(pool: Callable, x: np.ndarray, g: np.ndarray, window: int, stride: int):
    def both(x: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        out, pull = jax.vjp(lambda x: pool(x, window, stride), x)
        return out, pull(g)[0]

    return jax.jit(both)(x, g)


def integers(low: int, high: int, dtype: type = np.float32) -> Callable:
    """Draws whole numbers, so that sums of gradients are exact in any order."""
    rng = np.random.default_rng(0)
    return lambda shape: rng.integers(low, high, shape).astype(dtype)


@pytest.mark.parametrize(("window", "stride", "height", "width"), CASES)
def test_values_and_gradients(window: int, stride: int, height: int, width: int):
    x = np.random.default_rng(1).normal(size=(2, height, width, 3)).astype(np.float32)
    expected, g, expected_dx = from_the_definition(
        x, np.random.default_rng(2).standard_normal, window, stride
    )
    np.testing.assert_array_equal(jax.jit(max_pool, static_argnums=(1, 2))(x, window, stride), expected)
    out, dx = value_and_gradient(max_pool, x, g.astype(np.float32), window, stride)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_allclose(dx, expected_dx, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("window", "stride", "height", "width", "dtype"),
    [*((*case, np.float32) for case in CASES), (3, 2, 13, 12, jnp.bfloat16)],
)
def test_ties_go_where_xla_sends_them(window: int, stride: int, height: int, width: int, dtype: type):
    x = integers(0, 3, dtype)((2, height, width, 5))
    expected, g, expected_dx = from_the_definition(x, integers(-9, 10), window, stride)
    out, dx = value_and_gradient(max_pool, x, g.astype(dtype), window, stride)
    theirs, their_dx = value_and_gradient(xla_pool, x, g.astype(dtype), window, stride)
    assert out.dtype == dx.dtype == dtype
    np.testing.assert_array_equal(out, theirs)
    np.testing.assert_array_equal(dx, their_dx)
    np.testing.assert_array_equal(np.asarray(out, np.float64), expected)
    np.testing.assert_array_equal(np.asarray(dx, np.float64), expected_dx)


def test_a_tie_goes_to_the_first_row_and_in_it_to_the_first_column():
    x = np.array([[0, 0, 1], [1, 1, 1], [1, 0, 1]], np.float32).reshape(1, 3, 3, 1)
    _, dx = value_and_gradient(max_pool, x, np.ones((1, 1, 1, 1), np.float32), 3, 2)
    np.testing.assert_array_equal(dx.reshape(3, 3), [[0, 0, 1], [0, 0, 0], [0, 0, 0]])


def test_maxima_below_zero():
    x = -1 - np.random.default_rng(1).random((1, 7, 7, 2), np.float32)
    out, dx = value_and_gradient(max_pool, x, np.ones((1, 3, 3, 2), np.float32), 3, 2)
    np.testing.assert_array_equal(out, xla_pool(x, 3, 2))
    assert dx.sum() == 18  # every window passes its gradient on, none to the zeros around the input


@pytest.mark.parametrize(("window", "stride", "dtype"), [(3, 2, jnp.uint8), (17, 1, jnp.int32)])
def test_only_the_places_of_the_maxima_are_kept_for_the_backward_pass(window: int, stride: int, dtype: type):
    x = jnp.zeros((2, 19, 19, 8))
    pull = jax.eval_shape(lambda x: jax.vjp(lambda x: max_pool(x, window, stride), x)[1], x)
    side = (19 - window) // stride + 1
    kept = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(pull) if leaf.size > 1]
    assert kept == [((2, side, side, 8), dtype)]  # a byte numbers the 16 x 16 places of a window, no more


def test_the_compiled_gradient_has_no_scatter():
    x, g = jnp.zeros((2, 13, 13, 8)), jnp.zeros((2, 6, 6, 8))

    def compiled(pool: Callable) -> str:
        return jax.jit(lambda x, g: value_and_gradient(pool, x, g, 3, 2)).lower(x, g).compile().as_text()

    def found(text: str) -> list[str]:
        return [op for op in ("scatter(", "gather(", "reduce-window(") if op in text]

    assert found(compiled(max_pool)) == []
    assert found(compiled(xla_pool)) != []  # the names are those that this XLA prints
