"""Layers over the towers that a device holds, and the one place where towers meet.

Between layers, activations are a list with one array for each local tower. Every parameter has a leading
axis of towers, so that `kernel[0]` is what the paper's GPU 1 held; inside `shard_map` that axis is as long
as the list.
"""

from functools import partial

import jax
import numpy as np
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
        places: int = 0,  # leading axes of the shape along which each place has a bias of its own
    ):
        weights = jax.random.normal(rngs.params(), (towers, *shape), jnp.float32)
        self.kernel = nnx.Param(deviation * weights)
        self.bias = nnx.Param(jnp.full((towers, *shape[:places], shape[-1]), bias, jnp.float32))
        self.dtype = dtype
        # float32 means float32: no TF32 on a GPU, no bfloat16 passes on a TPU.
        self.precision = lax.Precision.HIGHEST if dtype == jnp.float32 else None

    def __call__(self, x: Towers) -> Towers:
        kernels = self.kernel[...].astype(self.dtype)
        biases = self.bias[...].astype(self.dtype)
        products = self.products(x, kernels)
        return [add_bias(y, bias) for y, bias in zip(products, biases, strict=True)]


class Conv(Layer):
    """One plain convolution for each tower: grouped and batched ones compile to far slower programs."""

    def __init__(self, shape: tuple[int, ...], *, stride: int, padding: tuple[int, int], **layer):
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


class LocalConv(Conv):
    """A convolution with a kernel and a bias for every place; kernel[t, y, x] is an ordinary one."""

    def __init__(self, shape: tuple[int, ...], **layer):
        super().__init__(shape, places=2, **layer)

    def products(self, x: Towers, kernels: jax.Array) -> Towers:
        return [self.product(tower, kernel) for tower, kernel in zip(x, kernels, strict=True)]

    def product(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
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
        return jnp.einsum("bhwi,hwio->bhwo", patches, flat, precision=self.precision)


class Dense(Layer):
    """A fully connected layer; images are flattened row by row, column by column, map by map."""

    def products(self, x: Towers, kernels: jax.Array) -> Towers:
        flat = jnp.stack([tower.reshape(tower.shape[0], -1) for tower in x])
        return list(product(flat, kernels, self.precision))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x: jax.Array, kernel: jax.Array, precision: lax.Precision | None) -> jax.Array:
    """x [T, B, I] times kernel [T, I, O], tower by tower.

    The kernels are large and the batch is small. XLA:CPU reads a kernel as it lies where the batch comes
    last, and otherwise packs it anew in each pass (measured: twice the time, forward and backward).
    """
    columns = lax.optimization_barrier(jnp.swapaxes(x, 1, 2))
    return jnp.einsum("tib,tio->tbo", columns, kernel, precision=precision)


def _product_forward(
    x: jax.Array, kernel: jax.Array, precision: lax.Precision | None
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return product(x, kernel, precision), (x, kernel)


def _product_backward(
    precision: lax.Precision | None, kept: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    columns = lax.optimization_barrier(jnp.einsum("tio,tbo->tib", kernel, g, precision=precision))
    return jnp.swapaxes(columns, 1, 2), jnp.einsum("tbi,tbo->tio", x, g, precision=precision)


product.defvjp(_product_forward, _product_backward)


@jax.custom_vjp
def add_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
    """y [..., maps] plus one number a map, or one for each place of each map."""
    return y + bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)


def _add_bias_forward(y: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    return add_bias(y, bias), bias


def _add_bias_backward(bias: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sums by multiplying with ones: XLA:CPU sums over leading axes several times slower, and less exactly.

    Eight rows of them, as for one row it takes neither its fast path nor its order of summation.
    """
    rows = g.reshape(-1, bias.size)
    ones = lax.optimization_barrier(jnp.ones((8, rows.shape[0]), g.dtype))
    return g, jnp.dot(ones, rows, precision=lax.Precision.HIGHEST)[0].reshape(bias.shape)


add_bias.defvjp(_add_bias_forward, _add_bias_backward)


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
