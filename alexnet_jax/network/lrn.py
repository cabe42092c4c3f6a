"""Local response normalisation (section 3.3) with a gradient written by hand.

    b_i = a_i / d_i^beta,   d_i = k + alpha * sum of a_j^2 over the window of `size` maps around i

Differentiating this through `reduce_window` and `pow` costs several times the memory traffic that it
needs. Here only the input is kept for the backward pass, the window sum is a few shifted slices that XLA
fuses into one loop, and d^-0.75 takes two square roots. With W the same window sum and s = d^-beta:

    dL/da = g s - 2 alpha beta a W(g a s / d)
"""

from functools import partial

import jax
from jax import lax
from jax import numpy as jnp


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
@partial(jax.jit, static_argnums=(1, 2, 3, 4))
def local_response_norm(a: jax.Array, size: int, k: float, alpha: float, beta: float) -> jax.Array:
    """`a` over its last axis (the maps of one tower), normalised; sums are float32."""
    wide = a.astype(jnp.float32)
    return (wide * _negative_power(_denominator(wide, size, k, alpha), beta)).astype(a.dtype)


def _forward(a: jax.Array, size: int, k: float, alpha: float, beta: float) -> tuple[jax.Array, jax.Array]:
    return local_response_norm(a, size, k, alpha, beta), a


def _backward(size: int, k: float, alpha: float, beta: float, a: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    # d and s are computed anew in every pass, behind barriers: shared, XLA would keep each root and quotient
    # as an array from the forward pass on, and reading those back costs more than taking the roots again.
    a, g = lax.optimization_barrier((a, g))
    wide, g = a.astype(jnp.float32), g.astype(jnp.float32)
    d = _denominator(wide, size, k, alpha)
    # The adjoint of a centred window is the window mirrored: the same one, as `size` is odd. The division
    # comes last so that XLA:CPU, which repeats a cheap operation for every tap, keeps its result.
    spread = _window_sum(g * wide * _negative_power(d, beta) / d, size)
    wide = lax.optimization_barrier(a).astype(jnp.float32)
    s = _negative_power(_denominator(wide, size, k, alpha), beta)
    return ((g * s - 2 * alpha * beta * wide * spread).astype(a.dtype),)


local_response_norm.defvjp(_forward, _backward)


def _denominator(a: jax.Array, size: int, k: float, alpha: float) -> jax.Array:
    return k + alpha * _window_sum(a * a, size)


def _window_sum(x: jax.Array, size: int) -> jax.Array:
    """For each map the sum over itself and `size // 2` neighbours on each side, clipped at the ends."""
    maps, reach = x.shape[-1], size // 2
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(reach, reach)])
    return sum(lax.slice_in_dim(padded, i, i + maps, axis=-1) for i in range(size))


def _negative_power(d: jax.Array, beta: float) -> jax.Array:
    if beta == 0.75:
        root = lax.rsqrt(d)
        return root * jnp.sqrt(root)
    return d**-beta
