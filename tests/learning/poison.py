"""Gradients that are no numbers."""

from collections.abc import Callable

import jax
from jax import numpy as jnp

from alexnet_jax.learning.metrics import Totals, score


def poison(label: int) -> Callable[[jax.Array, jax.Array], Totals]:
    """`score`, but for the gradients of pictures with a label."""

    @jax.custom_vjp
    def same(x: jax.Array, marked: jax.Array) -> jax.Array:
        del marked
        return x

    def forward(x: jax.Array, marked: jax.Array) -> tuple[jax.Array, jax.Array]:
        return x, marked

    def backward(marked: jax.Array, gradient: jax.Array) -> tuple[jax.Array, None]:
        return jnp.where(marked[:, None], jnp.nan, gradient), None

    same.defvjp(forward, backward)
    return lambda log_probabilities, labels: score(same(log_probabilities, labels == label), labels)
