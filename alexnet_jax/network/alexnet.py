"""AlexNet in towers (section 3.5, Figure 2)."""

import jax
from flax import nnx
from jax import numpy as jnp

from alexnet_jax.config import NetworkConfig
from alexnet_jax.errors import ConfigError
from alexnet_jax.network.layers import Conv, Dense, Towers, cross, dropout
from alexnet_jax.network.lrn import at_least_float32, local_response_norm
from alexnet_jax.network.pool import max_pool

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}


class AlexNet(nnx.Module):
    """Five convolutions and three fully connected layers; shapes below are those of the paper.

    Called inside `shard_map`: it computes the towers that its parameters hold and meets the others in
    `cross`, five times in a pass.
    """

    def __init__(self, config: NetworkConfig, rngs: nnx.Rngs):
        self.config = config
        c1, c2, c3, c4, c5 = (width // config.towers for width in config.conv_widths)
        f6, f7 = (width // config.towers for width in config.fc_widths)
        f8 = -(-config.classes // config.towers)  # padded up when the classes do not divide
        towers = config.towers

        def options(layer: int) -> dict:
            return {
                "towers": towers,
                "deviation": config.weight_deviations[layer - 1],
                "bias": config.biases[layer - 1],
                "dtype": jnp.dtype(config.compute_dtype),
                "rngs": rngs,
            }

        self.conv1 = Conv(
            (config.conv1.size, config.conv1.size, 3, c1),
            stride=config.conv1.stride,
            padding=(0, conv1_padding(config)),
            **options(1),
        )
        self.conv2 = Conv((5, 5, c1, c2), padding=(2, 2), **options(2))
        self.conv3 = Conv((3, 3, c2 * towers, c3), padding=(1, 1), **options(3))
        self.conv4 = Conv((3, 3, c3, c4), padding=(1, 1), **options(4))
        self.conv5 = Conv((3, 3, c4, c5), padding=(1, 1), **options(5))
        side = layer_sizes(config)["pool5"]
        self.fc6 = Dense((side * side * c5 * towers, f6), **options(6))
        self.fc7 = Dense((f6 * towers, f7), **options(7))
        self.fc8 = Dense((f7 * towers, f8), **options(8))

    def __call__(self, images: jax.Array, dropout_keys: jax.Array | None = None) -> jax.Array:
        """Class scores for images [B, 224, 224, 3]; `dropout_keys` [B] while training, None at test."""
        rate = self.config.dropout
        x = [images.astype(self.config.compute_dtype)] * self.conv1.kernel.shape[0]
        x = self.activate(self.conv1(x))  # 2 x [B, 55, 55, 48]
        x = self.pool(self.normalise(x))  # 2 x [B, 27, 27, 48]
        x = self.activate(self.conv2(x))  # 2 x [B, 27, 27, 128]
        x = self.pool(self.normalise(x))  # 2 x [B, 13, 13, 128]
        x = self.activate(self.conv3(cross(x)))  # 2 x [B, 13, 13, 192] from [B, 13, 13, 256]
        x = self.activate(self.conv4(x))  # 2 x [B, 13, 13, 192]
        x = self.activate(self.conv5(x))  # 2 x [B, 13, 13, 128]
        x = self.pool(x)  # 2 x [B, 6, 6, 128]
        x = self.activate(self.fc6(cross(x)))  # 2 x [B, 2048] from [B, 9216]
        x = dropout(x, rate, dropout_keys, layer=6)
        x = self.activate(self.fc7(cross(x)))  # 2 x [B, 2048] from [B, 4096]
        x = dropout(x, rate, dropout_keys, layer=7)
        x = self.fc8(cross(x))  # 2 x [B, 500]
        return at_least_float32(cross(x)[0][:, : self.config.classes])  # [B, 1000]

    def activate(self, x: Towers) -> Towers:
        return [ACTIVATIONS[self.config.activation](tower) for tower in x]

    def normalise(self, x: Towers) -> Towers:
        """Local response normalisation among the maps of a tower; it never sees another's."""
        lrn = self.config.lrn
        return [local_response_norm(tower, lrn.size, lrn.k, lrn.alpha, lrn.beta) for tower in x]

    def pool(self, x: Towers) -> Towers:
        return [max_pool(tower, self.config.pool.window, self.config.pool.stride) for tower in x]


def conv1_padding(config: NetworkConfig) -> int:
    """Zeros below and right of the image so that the last window fits, as in the authors' code: 3 at 224."""
    return -(config.image_size - config.conv1.size) % config.conv1.stride


def layer_sizes(config: NetworkConfig) -> dict[str, int]:
    """The side of every spatial layer, from the input to the last pool."""

    def pooled(side: int) -> int:
        return (side - config.pool.window) // config.pool.stride + 1

    padded = config.image_size + conv1_padding(config)
    conv1 = (padded - config.conv1.size) // config.conv1.stride + 1
    pool1 = pooled(conv1)
    pool2 = pooled(pool1)
    if pooled(pool2) < 1:
        raise ConfigError(
            f"network.image_size={config.image_size} is too small: the last pool would see "
            f"{pool2} x {pool2} maps through a window of {config.pool.window}"
        )
    return {
        "input": config.image_size,
        "conv1": conv1,
        "pool1": pool1,
        "conv2": pool1,
        "pool2": pool2,
        "conv3": pool2,
        "conv4": pool2,
        "conv5": pool2,
        "pool5": pooled(pool2),
    }
