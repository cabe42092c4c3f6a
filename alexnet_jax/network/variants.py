"""Any network that a config describes: what the paper compares AlexNet with, and what others made of it."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx
from jax import numpy as jnp

from alexnet_jax.config.fields import ConvConfig, LayerConfig, LrnConfig, NetworkConfig, Operation, PoolConfig
from alexnet_jax.network.alexnet import AlexNet, Tap, no_tap
from alexnet_jax.network.batch_norm import BatchNorm
from alexnet_jax.network.layers import (
    Conv,
    Dense,
    LocalConv,
    Towers,
    cross,
    dropout,
    first_rngs,
    first_tower,
    join,
)
from alexnet_jax.network.lrn import local_response_norm, map_norm
from alexnet_jax.network.pool import average_pool, max_pool
from alexnet_jax.network.precision import PRECISIONS
from alexnet_jax.network.shapes import NORM_OF, POOL_OF, SCORES, layer_sizes, overhang, pooled_size
from alexnet_jax.sharding.platform import Form

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}
NUMBERS = {"fc6": 6, "fc7": 7}  # of the layers with dropout, for its keys


class VariantNet(nnx.Module):
    """Convolutions, each with what follows it, then fully connected layers; parameters named as AlexNet's."""

    def __init__(self, config: NetworkConfig, seed: int | jax.Array, form: Form = "plain"):
        self.config, self.form = config, form
        self.precision = PRECISIONS[config.precision]
        sizes, towers, rngs = layer_sizes(config), config.towers, first_rngs(seed)
        maps, side = 3, config.image_size

        def options(layer: LayerConfig) -> dict[str, Any]:
            start = {"deviation": layer.deviation, "bias": layer.bias, "rngs": rngs}
            return {"towers": towers, "precision": self.precision, "form": form} | start

        def inputs(name: str, units: int) -> int:
            return units * towers if name in config.crossings else units

        for name, conv in config.convs().items():
            kernel = (conv.size, conv.size, inputs(name, maps), conv.width // towers)
            borders = (conv.padding, conv.padding + overhang(conv, side))
            window: dict[str, Any] = {"stride": conv.stride, "padding": borders}
            if name in config.unshared:
                layer: Conv = LocalConv(sizes[name], sizes[name], *kernel, **window, **options(conv))
            else:
                layer = Conv(*kernel, **window, **options(conv))
            setattr(self, name, layer)
            maps, side = conv.width // towers, pooled_size(config, conv, sizes[name])
            if "batch_norm" in conv.then:
                setattr(self, NORM_OF[name], BatchNorm(maps, towers, config.batch_norm))
        units = side * side * maps
        for name, hidden in config.hidden().items():
            setattr(self, name, Dense(inputs(name, units), hidden.width // towers, **options(hidden)))
            units = hidden.width // towers
        classes = -(-config.classes // towers)  # padded up when the classes do not divide
        self.fc8 = Dense(inputs("fc8", units), classes, scores=True, **options(config.fc8))

    def __call__(
        self, images: jax.Array, dropout_keys: jax.Array | None = None, tap: Tap = no_tap
    ) -> jax.Array:
        """Scores of images less the training mean; `dropout_keys` [B] while training, None at test."""
        config = self.config
        x = [images.astype(self.precision.activations)] * self.fc8.kernel.shape[0]
        for name, conv in config.convs().items():
            with jax.named_scope(name):
                x = getattr(self, name)(self.inputs(name, x))
                x = self.follow(name, conv, x, tap, training=dropout_keys is not None)
        for name in config.hidden():
            with jax.named_scope(name):
                x = tap(name, self.activate(getattr(self, name)(self.inputs(name, x))))
                x = dropout(x, config.dropout, dropout_keys, NUMBERS[name], config.towers)
        with jax.named_scope("fc8"):
            x = tap("fc8", self.fc8(self.inputs("fc8", x)))
        with jax.named_scope(SCORES):
            return join(x, config.towers)[:, : config.classes]

    def inputs(self, name: str, x: Towers) -> Towers:
        return cross(x, self.config.towers) if name in self.config.crossings else x

    def follow(self, name: str, conv: ConvConfig, x: Towers, tap: Tap, *, training: bool) -> Towers:
        """Applies what follows a convolution: its own stage ends before a pool, the pool's at the end."""
        for operation in conv.then:
            if operation == conv.pool:
                x = tap(name, x)
            x = self.apply(operation, name, x, training=training)
        return tap(POOL_OF[name] if conv.pool else name, x)

    def apply(self, operation: Operation, name: str, x: Towers, *, training: bool) -> Towers:
        config = self.config
        match operation:
            case "activation":
                return self.activate(x)
            case "lrn":
                return self.lrn(x, config.lrn)
            case "map_norm":
                norm = config.map_norm
                return [map_norm(t, norm.size, norm.k, norm.alpha, norm.beta, self.form) for t in x]
            case "batch_norm":
                return getattr(self, NORM_OF[name])(x, training=training)
            case "max_pool":
                return [max_pool(t, **window(config.pool), form=self.form) for t in x]
            case "average_pool":
                return [average_pool(t, **window(config.pool)) for t in x]

    def activate(self, x: Towers) -> Towers:
        return [ACTIVATIONS[self.config.activation](t) for t in x]

    def lrn(self, x: Towers, lrn: LrnConfig) -> Towers:
        """LRN among the maps of a tower, or of all towers, of which each tower keeps its own."""
        if lrn.over == "tower":
            return [self.normalise(t, lrn) for t in x]
        towers, maps = self.config.towers, x[0].shape[-1]
        joint = self.normalise(cross(x, towers)[0], lrn)
        first = first_tower(len(x), towers)
        return [jax.lax.dynamic_slice_in_dim(joint, (first + t) * maps, maps, axis=-1) for t in range(len(x))]

    def normalise(self, x: jax.Array, lrn: LrnConfig) -> jax.Array:
        return local_response_norm(x, lrn.size, lrn.k, lrn_factor(lrn), lrn.beta, self.form)


def window(pool: PoolConfig) -> Mapping[str, Any]:
    return {"window": pool.window, "stride": pool.stride, "rounding": pool.rounding}


def lrn_factor(lrn: LrnConfig) -> float:
    """The factor of the sum of squares over a window."""
    return lrn.alpha if lrn.alpha_times == "sum" else lrn.alpha / lrn.size


Network = AlexNet | VariantNet

# Size, stride and padding of the paper's convolutions, and what follows them.
PAPERS_CONVS = {
    "conv1": (11, 4, 0, "up", ("activation", "lrn", "max_pool")),
    "conv2": (5, 1, 2, "up", ("activation", "lrn", "max_pool")),
    "conv3": (3, 1, 1, "up", ("activation",)),
    "conv4": (3, 1, 1, "up", ("activation",)),
    "conv5": (3, 1, 1, "up", ("activation", "max_pool")),
}


def is_alexnet(config: NetworkConfig) -> bool:
    """Whether it has the paper's structure, whatever its widths, sizes, first weights and precision."""
    convs = {
        name: (conv.size, conv.stride, conv.padding, conv.rounding, conv.then)
        for name, conv in config.convs().items()
    }
    return (
        convs == PAPERS_CONVS
        and tuple(config.hidden()) == ("fc6", "fc7")
        and config.crossings == ("conv3", "fc6", "fc7", "fc8")
        and not config.unshared
        and config.activation == "relu"
        and config.lrn == LrnConfig(5, 2.0, 1e-4, "sum", 0.75, "tower")
        and config.pool == PoolConfig(3, 2, "up")
        and config.dropout == 0.5
    )


def make_network(config: NetworkConfig, seed: int | jax.Array, form: Form = "plain") -> Network:
    """AlexNet where a config has its structure, else a variant."""
    if not is_alexnet(config):
        return VariantNet(config, seed, form)
    layer_sizes(config)  # refuses images that are too small
    layers = config.layers().values()
    return AlexNet(
        seed,
        towers=config.towers,
        image_size=config.image_size,
        classes=config.classes,
        widths=[layer.width for layer in (config.convs() | config.hidden()).values()],
        deviations=[layer.deviation for layer in layers],
        biases=[layer.bias for layer in layers],
        precision=config.precision,
        form=form,
    )
