"""Overlapping max pooling (section 3.4), one axis at a time, with a gradient written by hand.

XLA differentiates `reduce_window(max)` into `select_and_scatter`, which is many times slower than the pass
itself. A 3x3 maximum is a maximum along the columns of the window and then along its rows, and the gradient
of each is a comparison and a sum of shifted copies. Ties go where XLA sends them: to the first row of the
window that holds the maximum and, in it, to the first column.
"""

from functools import partial

import jax
from jax import lax
from jax import numpy as jnp

ROWS, COLUMNS = 1, 2


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def max_pool(x: jax.Array, window: int, stride: int) -> jax.Array:
    """Maximum over `window` x `window` neighbourhoods, `stride` apart, of images [B, H, W, C]."""
    return _maximum(_maximum(x, COLUMNS, window, stride), ROWS, window, stride)


def _forward(x: jax.Array, window: int, stride: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    pooled = max_pool(x, window, stride)
    return pooled, (x, pooled)


def _backward(window: int, stride: int, kept: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array]:
    x, pooled = kept
    half = _maximum(x, COLUMNS, window, stride)
    g = _spread(g, half, pooled, ROWS, window, stride)
    return (_spread(g, x, half, COLUMNS, window, stride),)


max_pool.defvjp(_forward, _backward)


def _maximum(x: jax.Array, axis: int, window: int, stride: int) -> jax.Array:
    """Maximum over windows along one axis."""
    taps = [_tap(x, i, axis, window, stride) for i in range(window)]
    out = taps[0]
    for tap in taps[1:]:
        out = jnp.maximum(out, tap)
    return out


def _spread(g: jax.Array, x: jax.Array, maximum: jax.Array, axis: int, window: int, stride: int) -> jax.Array:
    """The gradient of `_maximum`: `g` goes to the first element of each window that is the maximum."""
    taken = jnp.zeros(g.shape, bool)
    out = jnp.zeros(x.shape, g.dtype)
    for i in range(window):
        first = (_tap(x, i, axis, window, stride) == maximum) & ~taken
        taken |= first
        out += _dilate(jnp.where(first, g, 0), i, axis, stride, x.shape[axis])
    return out


def _tap(x: jax.Array, start: int, axis: int, window: int, stride: int) -> jax.Array:
    """The element `start` of every window along the axis."""
    windows = (x.shape[axis] - window) // stride + 1
    return lax.slice_in_dim(x, start, start + (windows - 1) * stride + 1, stride, axis)


def _dilate(g: jax.Array, start: int, axis: int, stride: int, size: int) -> jax.Array:
    """The adjoint of `_tap`: values `stride` apart from `start` on, zeros between, `size` in all."""
    padding = [(0, 0, 0)] * g.ndim
    end = size - start - (g.shape[axis] - 1) * stride - 1
    padding[axis] = (start, end, stride - 1)
    return lax.pad(g, jnp.zeros((), g.dtype), padding)
