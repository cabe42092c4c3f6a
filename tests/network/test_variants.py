"""Every variant's layers against tables worked out by hand, and its scores against NumPy float64."""

import dataclasses
from types import ModuleType

import jax
import numpy as np
import pytest
from flax import nnx
from jax import numpy as jnp

from alexnet_jax.config.building import build
from alexnet_jax.config.fields import Config, NetworkConfig, Operation
from alexnet_jax.network.layers import Towers
from alexnet_jax.network.shapes import layer_sizes
from alexnet_jax.network.variants import VariantNet, make_network
from configs import cifar10, fashion_mnist, imagenet, quickstart, variants
from tests.network import reference
from tests.network.networks import averages, call, following, parts, redrawn

SIZES = "input 224, conv1 55, pool1 27, conv2 27, pool2 13, conv3 13, conv4 13, conv5 13, pool5 6"
# Weights and biases of each layer: kernel pixels x maps read x maps made (x towers) + maps made.
PAPER = {
    "conv1": 121 * 3 * 96 + 96,
    "conv2": 25 * 48 * 128 * 2 + 256,
    "conv3": 9 * 256 * 384 + 384,
    "conv4": 9 * 192 * 192 * 2 + 384,
    "conv5": 9 * 192 * 128 * 2 + 256,
    "fc6": 9216 * 4096 + 4096,
    "fc7": 4096 * 4096 + 4096,
    "fc8": 4096 * 1000 + 1000,
}
# What differs from that.
LAYERS = {
    "paper": {},
    "source": {},
    "half": {
        "conv1": 121 * 3 * 48 + 48,
        "conv2": 25 * 48 * 128 + 128,
        "conv3": 9 * 128 * 192 + 192,
        "conv4": 9 * 192 * 192 + 192,
        "conv5": 9 * 192 * 256 + 256,
    },
    "one_tower": {
        "conv2": 25 * 96 * 256 + 256,
        "conv4": 9 * 384 * 384 + 384,
        "conv5": 9 * 384 * 256 + 256,
    },
    "four_towers": {
        "conv2": 25 * 24 * 64 * 4 + 256,
        "conv4": 9 * 96 * 96 * 4 + 384,
        "conv5": 9 * 96 * 64 * 4 + 256,
    },
    "no_lrn": {},
    "lrn1_only": {},
    "lrn2_before_relu": {},
    "non_overlapping_pool": {},
    "no_conv3_crossing": {"conv3": 9 * 128 * 192 * 2 + 384},
    "no_communication": {
        "conv2": 25 * 48 * 160 * 2 + 320,
        "conv3": 9 * 160 * 192 * 2 + 384,
        "fc6": 4608 * 4096 * 2 + 8192,
        "fc7": 4096 * 4096 * 2 + 8192,
        "fc8": 8192 * 1000 + 1000,
    },
    "tanh": {},
    "sigmoid": {},
    "no_conv2": {"conv2": 0, "conv3": 9 * 96 * 384 + 384},
    "no_conv3": {"conv3": 0, "conv4": 9 * 256 * 192 * 2 + 384},
    "no_conv4": {"conv4": 0},
    "no_conv5": {"conv5": 0, "fc6": 36 * 384 * 4096 + 4096},
    "no_fc6": {"fc6": 0, "fc7": 9216 * 4096 + 4096},
    "no_fc7": {"fc7": 0},
    "no_dropout": {},
    "batch_norm": {},
    "six_convs": {"conv6": 9 * 256 * 256 + 256},
}
OTHER_SIZES = {
    "non_overlapping_pool": (
        "input 224, conv1 55, pool1 28, conv2 26, pool2 13, conv3 13, conv4 13, conv5 11, pool5 6"
    ),
    "no_conv2": "input 224, conv1 55, pool1 27, conv3 27, pool3 13, conv4 13, conv5 13, pool5 6",
    "no_conv3": SIZES.replace("conv3 13, ", ""),
    "no_conv4": SIZES.replace("conv4 13, ", ""),
    "no_conv5": "input 224, conv1 55, pool1 27, conv2 27, pool2 13, conv3 13, conv4 13, pool4 6",
    "six_convs": f"{SIZES}, conv6 6",
}


def config(names: str, recipe: ModuleType = imagenet) -> Config:
    """A recipe with variants; one that begins with what another run has learnt is taken without it."""
    return build(recipe.get_config(names).to_dict() | {"init_from": ""})


def network(names: str) -> NetworkConfig:
    return config(names).network


def narrow(names: str) -> NetworkConfig:
    """Few maps and small pictures, weights large enough for every layer to matter, an odd class count."""
    config = imagenet.get_config()
    imagenet.narrow(config.network, (16, 32, 32, 32, 16, 16, 32))
    config.network.image_size, config.network.classes = 66, 9
    config = variants.apply(config, names)
    layers = {"conv1": 0.01} | dict.fromkeys(("conv2", "conv3", "conv4", "conv5", "conv6"), 0.2)
    return redrawn(build(config.to_dict()).network, layers, 0.5, {"conv3": -0.2, "fc7": -0.3, "fc8": 0.2})


def test_all_that_change_the_network_are_here() -> None:
    others = {name for name in variants.VARIANTS if network(name) != network("paper")}
    assert others <= set(LAYERS) <= set(variants.VARIANTS)


def test_every_config_takes_them() -> None:
    for recipe in (quickstart, cifar10, fashion_mnist):
        for name in variants.VARIANTS:
            sizes = layer_sizes(config(f"source,{name}", recipe).network)
            assert min(sizes.values()) >= 1, (recipe.__name__, name)


def test_layers() -> None:
    """Parameters of every layer, and the sides of its maps."""
    for name, other in LAYERS.items():
        net = network(name)
        shapes = jax.eval_shape(lambda net=net: nnx.to_pure_dict(nnx.state(make_network(net, 0), nnx.Param)))
        found = {layer: sum(x.size for x in jax.tree.leaves(shapes[layer])) for layer in shapes}
        assert found == {layer: count for layer, count in (PAPER | other).items() if count}, name
        sizes = ", ".join(f"{layer} {side}" for layer, side in layer_sizes(net).items())
        assert sizes == OTHER_SIZES.get(name, SIZES), name


def unshared() -> NetworkConfig:
    return dataclasses.replace(narrow("paper"), unshared=("conv3", "conv4"))


def pool_before_lrn() -> NetworkConfig:
    config = following(narrow("paper"), conv1=("activation", "max_pool", "lrn"))
    return dataclasses.replace(config, lrn=dataclasses.replace(config.lrn, size=3))


def changed(section: str, **fields: object) -> NetworkConfig:
    config = narrow("paper")
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **fields)})


OTHERS = {
    "unshared": unshared,
    "pool_before_lrn": pool_before_lrn,
    "joint_lrn": lambda: changed("lrn", over="all"),
    "pools_rounded_down": lambda: changed("pool", rounding="down"),
    "conv_rounded_down": lambda: changed("conv1", rounding="down", padding=2),
    "average_pools": lambda: following(narrow("paper"), conv1=("activation", "average_pool", "map_norm")),
    "activation_last": lambda: following(narrow("paper"), conv2=("lrn", "max_pool", "activation")),
    "no_remainder": lambda: dataclasses.replace(narrow("paper"), image_size=67),  # as 227 is
}


@pytest.mark.parametrize("name", [*LAYERS, "source,six_convs", "source,lrn1_only", *OTHERS])
def test_scores_against_numpy(name: str) -> None:
    config = OTHERS[name]() if name in OTHERS else narrow(name)
    # Large enough that normalisation shows.
    lrn, within = (dataclasses.replace(norm, alpha=1e-2) for norm in (config.lrn, config.map_norm))
    config = dataclasses.replace(config, lrn=lrn, map_norm=within)
    graph, params = parts(config)
    side = config.image_size
    images = np.random.default_rng(0).normal(0, 60, (2, side, side, 3)).astype(np.float32)
    means = averages(config)
    found = call(graph, params, images, (1, 1), means)
    for image, scores in zip(images, found, strict=True):
        wanted = reference.forward(params | means, np.float64(image), config)
        assert np.ptp(wanted) > 0.01
        np.testing.assert_allclose(scores, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


# How many pixels of the input a unit sees along a side; conv1's lie 4 apart, pool1's 8, pool2's 16.
FIELDS = {
    "paper": {"conv1": 11, "conv2": 51, "conv3": 99, "conv4": 131, "conv5": 163, "pool5": 195},
    "non_overlapping_pool": {"conv1": 11, "conv2": 47, "conv3": 87, "conv4": 119, "conv5": 151, "pool5": 167},
    "no_conv4": {"conv1": 11, "conv2": 51, "conv3": 99, "conv5": 131, "pool5": 163},
}


class Summing(VariantNet):
    """Means for maxima, and no unit switched off: so all that a unit sees shows in its gradient."""

    def activate(self, x: Towers) -> Towers:
        return x

    def apply(self, operation: Operation, name: str, x: Towers, *, training: bool) -> Towers:
        operation = "average_pool" if operation == "max_pool" else operation
        return super().apply(operation, name, x, training=training)


@pytest.mark.parametrize("name", FIELDS)
def test_receptive_fields(name: str) -> None:
    config = imagenet.get_config(name)
    convs = [2 * bool(config.network[f"conv{i}"].width) for i in range(1, 6)]
    imagenet.narrow(config.network, (*convs, 2, 2))
    network = build(config.to_dict()).network
    graph, params = parts(network, Summing)

    def units(images: jax.Array) -> jax.Array:
        """The middle unit of every map, with all that it sees."""
        middles = {}

        def tap(name: str, x: Towers) -> Towers:
            if x[0].ndim == 4:
                middles[name] = x[0][0, (x[0].shape[1] - 1) // 2, (x[0].shape[2] - 1) // 2].sum()
            return x

        nnx.merge(graph, params)(images, tap=tap)
        return jnp.stack([middles[stage] for stage in FIELDS[name]])

    @jax.jit
    def gradients(images: jax.Array) -> list[jax.Array]:
        middles, pull = jax.vjp(units, images)
        return [pull(one)[0] for one in jnp.eye(len(middles))]

    found = [np.asarray(g) for g in gradients(np.ones((1, 224, 224, 3), np.float32))]
    sides = [np.ptp(np.flatnonzero(g.any(axis=(0, 2, 3)))) + 1 for g in found]
    assert dict(zip(FIELDS[name], sides, strict=True)) == FIELDS[name]
