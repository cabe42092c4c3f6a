"""Sums and counts, added up on the devices and divided on the host."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Totals:
    """Over the images seen: sum of losses, numbers of top-1 and top-5 errors, number of images."""

    loss: jax.Array
    top1_errors: jax.Array
    top5_errors: jax.Array
    images: jax.Array

    @classmethod
    def zero(cls) -> "Totals":
        zero: Any = np.zeros((), np.float32)  # NumPy's, which is put where a step wants it
        return cls(zero, zero, zero, zero)

    def __add__(self, other: "Totals") -> "Totals":
        return jax.tree.map(jnp.add, self, other)

    def means(self) -> dict[str, float]:
        """Fetched from the devices: loss, top-1 and top-5 error as fractions."""
        got = jax.device_get(self)
        images = float(got.images)
        return {
            "loss": float(got.loss) / images,
            "top1_error": float(got.top1_errors) / images,
            "top5_error": float(got.top5_errors) / images,
        }


def score(log_probabilities: jax.Array, labels: jax.Array) -> Totals:
    """Totals of a batch, from log-probabilities [B, classes]; labels below 0 mark padding."""
    weights = (labels >= 0).astype(log_probabilities.dtype)
    classes = jnp.arange(log_probabilities.shape[1])
    # A masked sum: indexing would make the gradient a scatter.
    truth = jnp.sum(jnp.where(labels[:, None] == classes[None], log_probabilities, 0), axis=1, keepdims=True)
    # Not "greater": a score that is not a number must count as an error.
    ahead = jnp.sum(~(log_probabilities <= truth), axis=1)
    level = jnp.maximum(1, jnp.sum(log_probabilities == truth, axis=1))

    def errors(top: int) -> jax.Array:
        """Ties count as the authors' code counts them: as often wrong as a draw among them would be."""
        return jnp.sum(weights * (1 - jnp.clip((top - ahead) / level, 0, 1)))

    return Totals(-jnp.sum(weights * truth[:, 0]), errors(1), errors(5), jnp.sum(weights))


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    """Whether every number in a tree of arrays is one."""
    # Among the largest is every nan too; a quarter of the time that `all` of them takes.
    return jnp.all(jnp.array([jnp.isfinite(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(tree)]))
