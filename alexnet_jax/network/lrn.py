"""Local response normalisation (section 3.3), plain and with a gradient written by hand.

    b_i = a_i / d_i^beta,   d_i = k + alpha * sum of a_j^2 over the window of `size` maps around i

The authors' code has a second kind, whose window is `size` x `size` pixels of one map; all else is the same.

Differentiating this through `reduce_window` and `pow` costs several times the memory traffic that it
needs. By hand only the input is kept for the backward pass, the window sum is a few shifted slices that XLA
fuses into one loop, and d^0.75 takes two square roots. With W the same window sum and t = d^beta:

    dL/da = g / t - 2 alpha beta a W(g a / (d t))

Two things make XLA:CPU write one array a pass (measured: together 1.5-1.6 times faster for relu, LRN and pool
with their gradients). Every pass ends in a division: what ends in something cheap is computed anew by all
who read it, and the pool reads an element up to nine times. And barriers stand between the passes: whatever
costs something and is wanted by two passes, as every root would be, is stored and read back.
"""

from functools import partial

import jax
from jax import lax
from jax import numpy as jnp

from alexnet_jax.network.precision import at_least_float32
from alexnet_jax.sharding.platform import Form, barrier, reverse_mode_only


def local_response_norm(
    a: jax.Array, size: int, k: float, alpha: float, beta: float, form: Form = "plain"
) -> jax.Array:
    """`a` over its last axis (the maps of one tower), normalised; `size` is odd, sums are float32."""
    return _normalise(a, (a.ndim - 1,), size, k, alpha, beta, form)


def map_norm(a: jax.Array, size: int, k: float, alpha: float, beta: float, form: Form = "plain") -> jax.Array:
    """Images [B, H, W, C], each map by the mean of squares over `size` x `size` pixels, zeros beyond."""
    return _normalise(a, (1, 2), size, k, alpha / size**2, beta, form)


def _normalise(
    a: jax.Array, axes: tuple[int, ...], size: int, k: float, alpha: float, beta: float, form: Form
) -> jax.Array:
    if form != "plain":
        with reverse_mode_only():
            return _by_hand(a, axes, size, k, alpha, beta, form)
    wide = at_least_float32(a)
    window = [size if axis in axes else 1 for axis in range(a.ndim)]
    sums = lax.reduce_window(wide * wide, 0.0, lax.add, window, [1] * a.ndim, "SAME")
    return (wide / (k + alpha * sums) ** beta).astype(a.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4, 5, 6))
@partial(jax.jit, static_argnums=(1, 2, 3, 4, 5, 6))
def _by_hand(
    a: jax.Array, axes: tuple[int, ...], size: int, k: float, alpha: float, beta: float, form: Form
) -> jax.Array:
    del form  # only the backward pass depends on it
    wide = at_least_float32(a)
    return (wide / _power(k + alpha * _window_sum(wide * wide, axes, size), beta)).astype(a.dtype)


def _forward(
    a: jax.Array, axes: tuple[int, ...], size: int, k: float, alpha: float, beta: float, form: Form
) -> tuple[jax.Array, jax.Array]:
    return _by_hand(a, axes, size, k, alpha, beta, form), a


def _backward(
    axes: tuple[int, ...],
    size: int,
    k: float,
    alpha: float,
    beta: float,
    form: Form,
    a: jax.Array,
    g: jax.Array,
) -> tuple[jax.Array]:
    a, g = barrier((a, g), form)
    wide, g = at_least_float32(a), at_least_float32(g)
    d = k + alpha * _window_sum(wide * wide, axes, size)
    # The adjoint of a centred window is the window mirrored: the same one, as `size` is odd.
    spread = _window_sum(g * wide / (d * _power(d, beta)), axes, size)
    wide = at_least_float32(barrier(a, form))
    t = _power(k + alpha * _window_sum(wide * wide, axes, size), beta)
    return (((g - 2 * alpha * beta * wide * spread * t) / t).astype(a.dtype),)


_by_hand.defvjp(_forward, _backward)


def _window_sum(x: jax.Array, axes: tuple[int, ...], size: int) -> jax.Array:
    """Sums at each place over itself and `size // 2` neighbours on each side, clipped at the ends."""
    for axis in axes:
        length, reach = x.shape[axis], size // 2
        padded = jnp.pad(x, [(reach, reach) if i == axis else (0, 0) for i in range(x.ndim)])
        first, *others = (lax.slice_in_dim(padded, i, i + length, axis=axis) for i in range(size))
        x = sum(others, first)
    return x


def _power(d: jax.Array, beta: float) -> jax.Array:
    if beta == 0.75:
        root = jnp.sqrt(d)
        return root * jnp.sqrt(root)
    return d**beta
