"""Layers over the towers that a device holds, and the one place where towers meet.

Between layers, activations are a list with one array for each local tower. Every parameter has a leading
axis of towers, so that `kernel[0]` is what the paper's GPU 1 held; inside `shard_map` that axis is as long
as the list.
"""

import jax
from flax import nnx
from jax import lax
from jax import numpy as jnp

from alexnet_jax.mesh import TOWER

Towers = list[jax.Array]


class Layer(nnx.Module):
    """Weights drawn from N(0, deviation) and a constant bias, one of each for every tower."""

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        towers: int,
        deviation: float,
        bias: float,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        weights = jax.random.normal(rngs.params(), (towers, *shape), jnp.float32)
        self.kernel = nnx.Param(deviation * weights)
        self.bias = nnx.Param(jnp.full((towers, shape[-1]), bias, jnp.float32))
        self.dtype = dtype
        # float32 means float32: no TF32 on a GPU, no bfloat16 passes on a TPU.
        self.precision = lax.Precision.HIGHEST if dtype == jnp.float32 else None

    def __call__(self, x: Towers) -> Towers:
        kernels = self.kernel[...].astype(self.dtype)
        biases = self.bias[...].astype(self.dtype)
        products = self.products(x, kernels)
        return [y + along_last(bias, y.ndim) for y, bias in zip(products, biases, strict=True)]


class Conv(Layer):
    """One plain convolution for each tower: grouped and batched ones compile to far slower programs."""

    def __init__(self, shape: tuple[int, ...], *, stride: int = 1, padding: tuple[int, int], **layer):
        super().__init__(shape, **layer)
        self.strides, self.padding = (stride, stride), (padding, padding)

    def products(self, x: Towers, kernels: jax.Array) -> Towers:
        return [
            lax.conv_general_dilated(
                x[t],
                kernels[t],
                self.strides,
                self.padding,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                precision=self.precision,
            )
            for t in range(len(x))
        ]


class Dense(Layer):
    """A fully connected layer; images are flattened row by row, column by column, map by map."""

    def products(self, x: Towers, kernels: jax.Array) -> Towers:
        flat = jnp.stack([tower.reshape(tower.shape[0], -1) for tower in x])
        return list(jnp.einsum("tbi,tio->tbo", flat, kernels, precision=self.precision))


def cross(x: Towers) -> Towers:
    """Gives every tower the maps of all: the only communication between towers."""
    here = jnp.concatenate(x, axis=-1)
    # Gathered along a new first axis: gathering maps directly makes XLA:CPU transpose them twice.
    everywhere = jnp.concatenate(jnp.unstack(lax.all_gather(here, TOWER)), axis=-1)
    return [everywhere] * len(x)


def dropout(x: Towers, rate: float, keys: jax.Array | None, layer: int) -> Towers:
    """Section 4.2: zero units while training, scale them at test; `keys` holds one key an image.

    A unit's fate depends on its image's key, the layer and the tower, not on where any of them is computed.
    """
    keep = 1 - rate
    if keys is None:
        return [tower * keep for tower in x]
    first = lax.axis_index(TOWER) * len(x)
    out = []
    for t, tower in enumerate(x):

        def mask(key: jax.Array, t: int = t, units: int = tower.shape[1]) -> jax.Array:
            key = jax.random.fold_in(jax.random.fold_in(key, layer), first + t)
            return jax.random.bernoulli(key, keep, (units,))

        out.append(jnp.where(jax.vmap(mask)(keys), tower, 0))
    return out


def along_last(vector: jax.Array, rank: int) -> jax.Array:
    """A vector shaped to be added along the last of `rank` axes."""
    return vector.reshape((1,) * (rank - 1) + (-1,))
