"""Pooling (section 3.4): plain, and overlapping max pooling with a gradient written by hand.

XLA differentiates `reduce_window(max)` into `select_and_scatter`, which is many times slower than the pass
itself. By hand the forward pass notes in one byte an output where in its window the maximum stood, and
nothing else is kept; in the backward pass every input looks at the few windows that it lies in and takes the
gradient of those that chose it. Ties go where XLA sends them: to the first row of the window that holds the
maximum and, in it, to the first column.
"""

from collections.abc import Callable
from functools import partial, reduce
from itertools import product
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from alexnet_jax.config.fields import Rounding
from alexnet_jax.network.precision import at_least_float32
from alexnet_jax.sharding.platform import Form, reverse_mode_only


def pooled(side: int, window: int, stride: int, rounding: Rounding = "up") -> int:
    """The side of a map after pooling: a last window that overlaps its end is kept if that is rounded up."""
    beyond = max(side - window, 0)
    return 1 + (-(-beyond // stride) if rounding == "up" else beyond // stride)


def max_pool(
    x: jax.Array, window: int, stride: int, rounding: Rounding = "up", form: Form = "plain"
) -> jax.Array:
    """Maximum over `window` x `window` pixels, at a stride, of images [B, H, W, C].

    A window that overlaps the image's end sees what there is; the stride is at most the window.
    """
    x = _fitted(x, window, stride, rounding, -jnp.inf)
    if form == "plain":
        return _reduce(x, -jnp.inf, lax.max, window, stride)
    with reverse_mode_only():
        return _max_pool(x, window, stride, x.shape[1:3])


def average_pool(x: jax.Array, window: int, stride: int, rounding: Rounding = "up") -> jax.Array:
    """The mean of the pixels that there are in each window; sums are float32."""
    pixels = _fitted(at_least_float32(x), window, stride, rounding, 0.0)
    there = _fitted(jnp.ones((1, *x.shape[1:3], 1), pixels.dtype), window, stride, rounding, 0.0)
    sums, counts = (_reduce(array, 0.0, lax.add, window, stride) for array in (pixels, there))
    return (sums / counts).astype(x.dtype)


def _fitted(x: jax.Array, window: int, stride: int, rounding: Rounding, beyond: float) -> jax.Array:
    """Pads with `beyond`, or cuts, to the rows and columns that windows reach."""
    reach = [(pooled(n, window, stride, rounding) - 1) * stride + window - n for n in x.shape[1:3]]
    if not any(reach):
        return x
    return lax.pad(x, jnp.array(beyond, x.dtype), [(0, 0, 0), *((0, n, 0) for n in reach), (0, 0, 0)])


def _reduce(x: jax.Array, start: float, function: Callable[..., Any], window: int, stride: int) -> jax.Array:
    """Over windows that fit."""
    return lax.reduce_window(x, start, function, (1, window, window, 1), (1, stride, stride, 1), "VALID")


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(x: jax.Array, window: int, stride: int, size: tuple[int, int]) -> jax.Array:
    del size  # only the backward pass cannot read it off its arguments
    return reduce(jnp.maximum, _taps(x, window, stride).values())


def _forward(x: jax.Array, window: int, stride: int, size: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    taps = _taps(x, window, stride)
    maximum = taps[0]
    place = jnp.zeros(maximum.shape, jnp.uint8 if _pitch(window, stride) <= 16 else jnp.int32)
    for number, tap in taps.items():
        place = jnp.where(tap > maximum, number, place)  # strictly: a tie stays with the first
        maximum = jnp.maximum(tap, maximum)
    return _max_pool(x, window, stride, size), place


def _backward(
    window: int, stride: int, size: tuple[int, int], place: jax.Array, g: jax.Array
) -> tuple[jax.Array]:
    """Input (y, x) has number (y % stride + i stride, x % stride + j stride) in the window (y // stride - i,
    x // stride - j), for every i and j below `reach` and where there is such a window."""
    pitch = _pitch(window, stride)
    reach = pitch // stride
    rows, columns = (np.arange(n) % stride for n in size)
    place, g = (_frame(kept, reach - 1, stride, size) for kept in (place, g))
    out = jnp.zeros((), g.dtype)
    for i, j in product(range(reach), repeat=2):
        numbers = (rows[:, None] + i * stride) * pitch + columns + j * stride
        chosen = _look_up(place, reach - 1 - i, reach - 1 - j, stride, size) == numbers[None, :, :, None]
        out = out + jnp.where(chosen, _look_up(g, reach - 1 - i, reach - 1 - j, stride, size), 0)
    return (out,)


_max_pool.defvjp(_forward, _backward)


def _taps(x: jax.Array, window: int, stride: int) -> dict[int, jax.Array]:
    """The pixel at each place of all windows, in order of row and column, by the number of the place."""

    def along(axis: int, start: int, x: jax.Array) -> jax.Array:
        windows = (x.shape[axis] - window) // stride + 1
        return lax.slice_in_dim(x, start, start + (windows - 1) * stride + 1, stride, axis)

    places = product(range(window), repeat=2)
    return {
        row * _pitch(window, stride) + column: along(1, row, along(2, column, x)) for row, column in places
    }


def _pitch(window: int, stride: int) -> int:
    """The numbers from one row of a window to the next: its width, rounded up to whole strides."""
    return -(-window // stride) * stride


def _frame(x: jax.Array, before: int, stride: int, size: tuple[int, int]) -> jax.Array:
    """Zeros around an array over windows: `before` of them first, and as many last as the input reaches."""
    after = [-(-n // stride) - windows for n, windows in zip(size, x.shape[1:3], strict=True)]
    padding = [(0, 0, 0), *((before, end, 0) for end in after), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), padding)


def _look_up(x: jax.Array, row: int, column: int, stride: int, size: tuple[int, int]) -> jax.Array:
    """Gathers for every input (y, x) the element (y // stride + row, x // stride + column)."""
    rows, columns = (-(-n // stride) for n in size)
    x = x[:, row : row + rows, None, column : column + columns, None]
    x = jnp.broadcast_to(x, (x.shape[0], rows, stride, columns, stride, x.shape[-1]))
    return x.reshape(x.shape[0], rows * stride, columns * stride, -1)[:, : size[0], : size[1]]
