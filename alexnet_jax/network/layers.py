"""Layers over the towers that a device holds, and the one place where towers meet.

Between layers, activations are a list with one array for each local tower. Every parameter has a leading axis
of towers, so that `kernel[0]` is what the paper's GPU 1 held. Outside of `shard_map` all towers are local;
inside, that axis is as long as the list.
"""

from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import lax
from jax import numpy as jnp

from alexnet_jax.network.precision import Precision
from alexnet_jax.sharding.mesh import TOWER
from alexnet_jax.sharding.platform import Form, add_bias, cpu_add_bias, cpu_product

Towers = list[jax.Array]
Params = dict[str, dict[str, jax.Array]]


def first_rngs(seed: int | jax.Array) -> nnx.Rngs:
    """The source of first weights, from a seed or from a key; a run with the same seed draws the same."""
    key = jax.random.fold_in(jax.random.key(seed), 0) if isinstance(seed, int) else seed
    return nnx.Rngs(params=key)


class Layer(nnx.Module):
    """Weights drawn from N(0, deviation) and a constant bias, one of each for every tower."""

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        towers: int,
        deviation: float,
        bias: float,
        rngs: nnx.Rngs,
        precision: Precision,
        form: Form,
        places: int = 0,  # leading axes of the shape along which each place has a bias of its own
    ):
        weights = jax.random.normal(rngs.params(), (towers, *shape), jnp.float32)
        self.kernel = nnx.Param(deviation * weights)
        self.bias = nnx.Param(jnp.full((towers, *shape[:places], shape[-1]), bias, jnp.float32))
        self.precision, self.form = precision, form

    def __call__(self, x: Towers) -> Towers:
        kernels = self.kernel[...].astype(self.precision.activations)
        products = self.products(x, kernels)
        add = cpu_add_bias if self.form == "cpu" else add_bias
        return [add(y, bias) for y, bias in zip(products, self.bias[...], strict=True)]

    def products(self, x: Towers, kernels: jax.Array) -> Towers:
        raise NotImplementedError


class Conv(Layer):
    """One plain convolution for each tower: grouped and batched ones compile to far slower programs."""

    def __init__(self, *shape: int, stride: int = 1, padding: tuple[int, int] = (0, 0), **layer: Any):
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
                precision=self.precision.products,
            )
            for t in range(len(x))
        ]


class LocalConv(Conv):
    """A convolution with a kernel and a bias for every place; kernel[t, y, x] is an ordinary one."""

    def __init__(self, *shape: int, **layer: Any):
        super().__init__(*shape, places=2, **layer)

    def products(self, x: Towers, kernels: jax.Array) -> Towers:
        return [self.convolve(tower, kernel) for tower, kernel in zip(x, kernels, strict=True)]

    def convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """x [B, H, W, I] with kernel [h, w, k, k, I, O]."""
        height, width, *size = kernel.shape[:4]
        x = jnp.pad(x, [(0, 0), *self.padding, (0, 0)])
        reach = [(n - 1) * stride + 1 for n, stride in zip((height, width), self.strides, strict=True)]
        seen = [
            x[:, i : i + reach[0] : self.strides[0], j : j + reach[1] : self.strides[1]]
            for i, j in np.ndindex(*size)
        ]
        patches = jnp.concatenate(seen, axis=-1)
        flat = kernel.reshape(height, width, -1, kernel.shape[-1])
        return jnp.einsum("bhwi,hwio->bhwo", patches, flat, precision=self.precision.products)


class Dense(Layer):
    """A fully connected layer; images are flattened row by row, column by column, map by map."""

    def __init__(self, *shape: int, scores: bool = False, **layer: Any):
        super().__init__(shape, **layer)
        self.scores = scores  # which are not rounded to less than float32

    def products(self, x: Towers, kernels: jax.Array) -> Towers:
        flat = jnp.stack([tower.reshape(tower.shape[0], -1) for tower in x])
        out = jnp.promote_types(flat.dtype, jnp.float32) if self.scores else flat.dtype
        if self.form == "cpu":
            return list(cpu_product(flat, kernels, self.precision.products, out))
        product = jnp.einsum(
            "tbi,tio->tbo", flat, kernels, precision=self.precision.products, preferred_element_type=out
        )
        return list(product)


def cross(x: Towers, towers: int) -> Towers:
    """Gives every tower the maps of all `towers`: with `join` the only communication between them."""
    here = jnp.concatenate(x, axis=-1)
    if len(x) == towers:
        return [here] * len(x)
    # Gathered along a new first axis: gathering maps directly makes XLA:CPU transpose them twice.
    everywhere = jnp.concatenate(jnp.unstack(lax.all_gather(here, TOWER)), axis=-1)
    return [everywhere] * len(x)


def join(x: Towers, towers: int) -> jax.Array:
    """The outputs of all `towers`, the same on all their devices: the crossing after the last layer.

    As its result is known to be the same, each tower takes its own part of the gradient, and asks nobody.
    """
    here = jnp.concatenate(x, axis=-1)
    if len(x) == towers:
        return here
    return jnp.concatenate(jnp.unstack(lax.all_gather(here, TOWER, to="invarying")), axis=-1)


def first_tower(local: int, towers: int) -> jax.Array | int:
    """The number of the first of a device's towers."""
    return 0 if local == towers else lax.axis_index(TOWER) * local


def dropout(x: Towers, rate: float, keys: jax.Array | None, layer: int, towers: int) -> Towers:
    """Section 4.2: zero units while training, scale them at test; `keys` holds one key an image.

    A unit's fate depends on its image's key, the layer and the tower, not on where any of them is computed.
    """
    keep = 1 - rate
    if keys is None:
        return [tower * keep for tower in x]
    first = first_tower(len(x), towers)
    out = []
    for t, tower in enumerate(x):

        def mask(key: jax.Array, t: int = t, units: int = tower.shape[1]) -> jax.Array:
            key = jax.random.fold_in(jax.random.fold_in(key, layer), first + t)
            return jax.random.bernoulli(key, keep, (units,))

        out.append(jnp.where(jax.vmap(mask)(keys), tower, 0))
    return out
