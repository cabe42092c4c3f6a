"""Batch normalisation: each map by its mean and variance over all pixels of a batch's pictures."""

import jax
from flax import nnx
from jax import lax
from jax import numpy as jnp

from alexnet_jax.config.fields import BatchNormConfig
from alexnet_jax.network.layers import Towers
from alexnet_jax.network.precision import at_least_float32
from alexnet_jax.sharding.mesh import DATA
from alexnet_jax.sharding.spread import mean_over


class BatchNorm(nnx.Module):
    """(a - mean) / sqrt(variance + epsilon): of the batch while training, of running averages at test.

    A tower's maps are its own, so towers need not talk; the batch is everybody's, so rows of devices do.
    """

    def __init__(self, maps: int, towers: int, config: BatchNormConfig):
        self.config = config
        self.mean = nnx.BatchStat(jnp.zeros((towers, maps), jnp.float32))
        self.variance = nnx.BatchStat(jnp.ones((towers, maps), jnp.float32))

    def __call__(self, x: Towers, *, training: bool) -> Towers:
        mean, variance = moments(x) if training else (self.mean[...], self.variance[...])
        if training:
            decay = self.config.decay
            self.mean[...] = decay * self.mean[...] + (1 - decay) * mean
            self.variance[...] = decay * self.variance[...] + (1 - decay) * variance
        factors = lax.rsqrt(variance + self.config.epsilon)
        return [_scaled(*tower) for tower in zip(x, mean, factors, strict=True)]


def moments(x: Towers) -> tuple[jax.Array, jax.Array]:
    """Means and variances, [towers, maps] each, over the whole batch, wherever its rows lie."""
    mean = mean_over(jnp.stack([_mean(at_least_float32(tower)) for tower in x]), DATA)
    squares = [_mean((at_least_float32(tower) - _as_map(m)) ** 2) for tower, m in zip(x, mean, strict=True)]
    return mean, mean_over(jnp.stack(squares), DATA)


def _mean(x: jax.Array) -> jax.Array:
    return jnp.mean(x, axis=(0, 1, 2))


def _as_map(values: jax.Array) -> jax.Array:
    """Broadcasts a number per map, [maps], to arrays [B, H, W, maps]."""
    return values[None, None, None]


def _scaled(x: jax.Array, mean: jax.Array, factor: jax.Array) -> jax.Array:
    return ((at_least_float32(x) - _as_map(mean)) * _as_map(factor)).astype(x.dtype)
