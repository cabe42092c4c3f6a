"""Names and sizes of a network's layers, from its config alone."""

from alexnet_jax.config.fields import CONVS, ConvConfig, NetworkConfig
from alexnet_jax.errors import ConfigError
from alexnet_jax.network.pool import pooled

# Layers name their part of a compiled program, for profiles and plans; so does the crossing after the last.
SCORES = "scores"
POOL_OF = {name: f"pool{number}" for number, name in enumerate(CONVS, 1)}
NORM_OF = {name: f"norm{number}" for number, name in enumerate(CONVS, 1)}  # its batch normalisation


def stage_names(config: NetworkConfig) -> tuple[str, ...]:
    """conv1, pool1, ..., fc8: the activations that can be had, in order."""
    return (*(name for name in layer_sizes(config) if name != "input"), *config.hidden(), "fc8")


def layer_sizes(config: NetworkConfig) -> dict[str, int]:
    """The side of every spatial layer: input, conv1, pool1, ... as far as there are any."""
    side = config.image_size
    sizes = {"input": side}
    for name, conv in config.convs().items():
        if side + 2 * conv.padding < conv.size:
            raise ConfigError(
                f"network.image_size={config.image_size} is too small: the kernels of {name}, {conv.size} x "
                f"{conv.size}, would see {side} x {side} pixels and {conv.padding} zeros around them"
            )
        sizes[name] = side = (side + 2 * conv.padding + overhang(conv, side) - conv.size) // conv.stride + 1
        if conv.pool:
            sizes[POOL_OF[name]] = side = pooled_size(config, conv, side)
    return sizes


def overhang(conv: ConvConfig, side: int) -> int:
    """Zeros to add below and right so that the last kernel fits: 3 for conv1 at 224 pixels."""
    return -(side + 2 * conv.padding - conv.size) % conv.stride if conv.rounding == "up" else 0


def pooled_size(config: NetworkConfig, conv: ConvConfig, side: int) -> int:
    """The side of a convolution's maps after the pool that follows, if one does."""
    pool = config.pool
    return pooled(side, pool.window, pool.stride, pool.rounding) if conv.pool else side
