"""The precision of activations and products. Weights, sums, probabilities and updates are float32 always."""

from dataclasses import dataclass

import jax
from jax import lax
from jax import numpy as jnp
from jax.typing import DTypeLike


@dataclass(frozen=True)
class Precision:
    """The type of activations, and how products of float32 numbers are rounded."""

    activations: DTypeLike
    products: lax.Precision | None


PRECISIONS = {
    # float32 means float32: no TF32 on a GPU, no bfloat16 passes on a TPU.
    "float32": Precision(jnp.float32, lax.Precision.HIGHEST),
    # The accelerator's own way of multiplying float32: TF32 on a GPU, one pass of bfloat16 on a TPU.
    "tf32": Precision(jnp.float32, None),
    "bfloat16": Precision(jnp.bfloat16, None),
    "float64": Precision(jnp.float64, None),  # of tests, which have float64 weights too
}


def at_least_float32(x: jax.Array) -> jax.Array:
    """Sums, roots and probabilities are taken in float32 (or float64, where that is what came in)."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
