"""AlexNet in towers (section 3.5, Figure 2), and the nets that its authors compared it with."""

from collections.abc import Callable

import jax
from flax import nnx
from jax import numpy as jnp

from alexnet_jax.config import ConvConfig, LayerConfig, LrnConfig, NetworkConfig
from alexnet_jax.errors import ConfigError
from alexnet_jax.network.batch_norm import BatchNorm
from alexnet_jax.network.layers import Conv, Dense, LocalConv, Towers, cross, dropout
from alexnet_jax.network.lrn import at_least_float32, local_response_norm, map_norm
from alexnet_jax.network.pool import max_pool, pooled

# Layers name their part of a compiled program, for profiles and plans; so does the crossing after the last.
SCORES = "scores"
ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}

# Is shown what each stage (`stage_names`) hands on, by tower, and says what goes on instead.
See = Callable[[str, Towers], Towers]


class AlexNet(nnx.Module):
    """Convolutions, then fully connected layers: five and three in the paper.

    Called inside `shard_map`: it computes the towers that its parameters hold and meets the others in
    `cross`, five times in a pass of the paper's net, of which these are the shapes in a tower:

        images                                  [B, 224, 224, 3]
        conv1  activation LRN pool              [B, 27, 27, 48]     from 55 x 55
        conv2  activation LRN pool              [B, 13, 13, 128]    from 27 x 27
        conv3  activation, after a crossing     [B, 13, 13, 192]    of [B, 13, 13, 256]
        conv4  activation                       [B, 13, 13, 192]
        conv5  activation pool                  [B, 6, 6, 128]
        fc6, fc7  each after a crossing         [B, 2048]
        fc8       after a crossing              [B, 500]
    """

    def __init__(self, config: NetworkConfig, rngs: nnx.Rngs):
        self.config = config
        sizes, towers = layer_sizes(config), config.towers
        maps, side = 3, config.image_size

        def options(layer: LayerConfig) -> dict:
            drawn = {"deviation": layer.deviation, "bias": layer.bias, "rngs": rngs}
            return {"towers": towers, "dtype": jnp.dtype(config.compute_dtype), **drawn}

        def inputs(name: str, units: int) -> int:
            return units * towers if name in config.crossings else units

        for name, conv in config.convs().items():
            shape = (conv.size, conv.size, inputs(name, maps), conv.width // towers)
            borders = (conv.padding, conv.padding + overhang(conv, side))
            kind = Conv
            if name in config.unshared:
                kind, shape = LocalConv, (sizes[name], sizes[name], *shape)
            setattr(self, name, kind(shape, stride=conv.stride, padding=borders, **options(conv)))
            maps, side = conv.width // towers, pooled_size(config, name, sizes[name])
            if name in config.batch_norm.after:
                setattr(self, norm_of(name), BatchNorm(maps, towers, config.batch_norm))
        units = side * side * maps
        for name, hidden in config.hidden().items():
            setattr(self, name, Dense((inputs(name, units), hidden.width // towers), **options(hidden)))
            units = hidden.width // towers
        classes = -(-config.classes // towers)  # padded up when the classes do not divide
        self.fc8 = Dense((inputs("fc8", units), classes), **options(config.fc8))

    def __call__(
        self, images: jax.Array, dropout_keys: jax.Array | None = None, see: See = lambda _, x: x
    ) -> jax.Array:
        """Class scores for images [B, 224, 224, 3]; `dropout_keys` [B] while training, None at test."""
        config = self.config
        x = [images.astype(config.compute_dtype)] * self.fc8.kernel.shape[0]
        for name in config.convs():
            with jax.named_scope(name):
                x = self.convolve(name, x, see, training=dropout_keys is not None)
        for name in config.hidden():
            with jax.named_scope(name):
                x = see(name, self.activate(getattr(self, name)(self.inputs(name, x))))
                x = dropout(x, config.dropout, dropout_keys, layer=int(name[-1]))
        with jax.named_scope("fc8"):
            x = see("fc8", self.fc8(self.inputs("fc8", x)))
        with jax.named_scope(SCORES):
            return at_least_float32(cross(x)[0][:, : config.classes])  # [B, classes]

    def convolve(self, name: str, x: Towers, see: See, *, training: bool) -> Towers:
        """A convolution, and everything before the next layer."""
        config, lrn = self.config, self.config.lrn
        shrinks = name in config.pool.after
        x = getattr(self, name)(self.inputs(name, x))
        x = self.normalise(x, name in lrn.before_activation)
        x = self.activate(x)
        x = self.normalise(x, name in lrn.after_activation)
        x = self.normalise_maps(x, name in config.map_norm.after)
        x = self.pool(see(name, x)) if shrinks else x
        x = self.normalise(x, name in lrn.after_pool)
        if name in config.batch_norm.after:
            x = getattr(self, norm_of(name))(x, training=training)
        return see(pool_of(name) if shrinks else name, x)

    def inputs(self, name: str, x: Towers) -> Towers:
        return cross(x) if name in self.config.crossings else x

    def activate(self, x: Towers) -> Towers:
        return [ACTIVATIONS[self.config.activation](tower) for tower in x]

    def normalise(self, x: Towers, here: bool) -> Towers:
        """Local response normalisation among the maps of a tower; it never sees another's."""
        lrn = self.config.lrn
        return [local_response_norm(t, lrn.size, lrn.k, lrn_factor(lrn), lrn.beta) for t in x] if here else x

    def normalise_maps(self, x: Towers, here: bool) -> Towers:
        norm = self.config.map_norm
        return [map_norm(t, norm.size, norm.k, norm.alpha, norm.beta) for t in x] if here else x

    def pool(self, x: Towers) -> Towers:
        return [max_pool(t, self.config.pool.window, self.config.pool.stride) for t in x]


def lrn_factor(lrn: LrnConfig) -> float:
    """What multiplies the sum of squares over a window."""
    return lrn.alpha if lrn.alpha_times == "sum" else lrn.alpha / lrn.size


def norm_of(name: str) -> str:
    """What the batch normalisation after a convolution is called."""
    return name.replace("conv", "norm")


def pool_of(name: str) -> str:
    """What the pool after a convolution is called."""
    return name.replace("conv", "pool")


def stage_names(config: NetworkConfig) -> tuple[str, ...]:
    """conv1, pool1, ..., fc8: what there is to see, in order."""
    return (*(name for name in layer_sizes(config) if name != "input"), *config.hidden(), "fc8")


def overhang(conv: ConvConfig, side: int) -> int:
    """Zeros to add below and right so that the last kernel fits: 3 for conv1 at 224 pixels."""
    return -(side + 2 * conv.padding - conv.size) % conv.stride


def pooled_size(config: NetworkConfig, name: str, side: int) -> int:
    """The side of a convolution's maps after the pool that follows, if one does."""
    return pooled(side, config.pool.window, config.pool.stride) if name in config.pool.after else side


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
        whole = side + 2 * conv.padding + overhang(conv, side)
        sizes[name] = (whole - conv.size) // conv.stride + 1
        side = pooled_size(config, name, sizes[name])
        if name in config.pool.after:
            sizes[pool_of(name)] = side
    return sizes
