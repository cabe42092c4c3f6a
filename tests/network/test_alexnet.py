"""The network against a NumPy float64 AlexNet, its sizes against the paper, its towers against each other."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from jax import numpy as jnp

from alexnet_jax.config.building import build
from alexnet_jax.config.fields import Config
from alexnet_jax.errors import ConfigError
from alexnet_jax.network.layers import Towers, cross, dropout
from alexnet_jax.network.shapes import layer_sizes, overhang
from alexnet_jax.sharding.mesh import PARAMETERS, make_mesh
from alexnet_jax.sharding.platform import cpu_add_bias
from alexnet_jax.sharding.spread import spread
from configs import cifar10, fashion_mnist
from tests.network import reference
from tests.network.networks import call, parts, redrawn


@pytest.mark.parametrize("towers", [1, 2, 4])
def test_forward_against_numpy(narrow: Config, towers: int) -> None:
    """Every layer, crossing and border, with weights large enough for LRN and ReLU to matter."""
    config = dataclasses.replace(
        narrow.network,
        towers=towers,
        classes=9,
        image_size=66,
    )
    deviations = {"conv1": 0.01, "conv2": 0.2, "conv3": 0.2, "conv4": 0.3, "conv5": 0.3}
    biases = {"conv1": 0.1, "conv3": -0.2, "conv5": 0.5, "fc7": -0.3, "fc8": 0.2}
    config = redrawn(config, deviations, 0.5, biases)
    graph, params = parts(config)
    images = np.random.default_rng(0).normal(0, 60, (2, 66, 66, 3)).astype(np.float32)
    found = call(graph, params, images, (1, towers))
    for image, scores in zip(images, found, strict=True):
        wanted = reference.forward(params, np.float64(image), config)
        np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def test_sizes_of_small_pictures() -> None:
    sizes = {
        cifar10: [28, 24, 12, 12, 6, 6, 6, 6, 3],
        fashion_mnist: [24, 20, 10, 10, 5, 5, 5, 5, 2],
    }
    for recipe, wanted in sizes.items():
        assert list(layer_sizes(build(recipe.get_config().to_dict()).network).values()) == wanted


def test_sizes_of_the_paper(paper: Config) -> None:
    assert list(layer_sizes(paper.network).values()) == [224, 55, 27, 27, 13, 13, 13, 13, 6]
    assert overhang(paper.network.conv1, 224) == 3
    _, params = parts(paper.network)
    shapes = {name: layer["kernel"].shape for name, layer in params.items()}
    assert shapes["conv1"] == (2, 11, 11, 3, 48)
    assert shapes["conv2"] == (2, 5, 5, 48, 128)
    assert shapes["conv3"] == (2, 3, 3, 256, 192)
    assert shapes["fc6"] == (2, 9216, 2048)
    assert shapes["fc8"] == (2, 4096, 500)
    assert sum(x.size for x in jax.tree.leaves(params)) == 60_965_224


def test_too_small_a_picture(paper: Config) -> None:
    message = (
        "image_size=10 is too small: the kernels of conv1, 11 x 11, would see 10 x 10 pixels and 0 zeros"
    )
    with pytest.raises(ConfigError, match=message):
        layer_sizes(dataclasses.replace(paper.network, image_size=10))


@pytest.mark.parametrize(("layer", "meets"), [("conv2", False), ("conv3", True), ("conv5", True)])
def test_towers_meet_at_conv3(narrow: Config, layer: str, meets: bool) -> None:
    """Tower 0's outputs do not depend on tower 1's conv1 before conv3, exactly."""
    graph, params = parts(narrow.network)
    images = np.random.default_rng(0).normal(0, 60, (1, 64, 64, 3)).astype(np.float32)

    def strength(params: dict) -> jax.Array:
        found = {}

        def tap(name: str, x: Towers) -> Towers:
            found[name] = x
            return x

        nnx.merge(graph, params)(images, tap=tap)
        return jnp.sum(found[layer][0] ** 2)

    gradient = jax.jit(jax.grad(strength))(params)["conv1"]["kernel"]
    assert np.any(gradient[0] != 0)
    assert np.any(gradient[1] != 0) == meets


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 4)])
def test_cross_joins_towers_in_order(shape: tuple[int, int]) -> None:
    towers = np.arange(4 * 2 * 3, dtype=np.float32).reshape(4, 2, 3)

    def body(x: jax.Array) -> jax.Array:
        return jnp.stack(cross(list(x), 4))

    joined = spread(body, make_mesh(*shape), PARAMETERS, PARAMETERS)(towers)
    wanted = np.concatenate(list(towers), axis=-1)
    np.testing.assert_array_equal(joined, np.stack([wanted] * 4))


def test_dropout_belongs_to_image_layer_and_tower() -> None:
    """The same masks on one device as on two; half of the units; another mask for each cause."""
    keys = jax.random.split(jax.random.key(3), 500)
    ones = np.ones((2, 500, 64), np.float32)

    def masks(shape: tuple[int, int], layer: int) -> np.ndarray:
        def body(x: jax.Array) -> jax.Array:
            return jnp.stack(dropout(list(x), 0.5, keys, layer, 2))

        mapped = spread(body, make_mesh(*shape), PARAMETERS, PARAMETERS)
        return np.asarray(jax.jit(mapped)(ones))

    one, two, other = masks((1, 1), 6), masks((1, 2), 6), masks((1, 1), 7)
    np.testing.assert_array_equal(one, two)
    assert abs(one.mean() - 0.5) < 0.01
    for left, right in ((one[0], one[1]), (one, other), (one[:, :-1], one[:, 1:])):
        assert abs((left == right).mean() - 0.5) < 0.01


def test_dropout_halves_at_test() -> None:
    assert dropout([jnp.ones((1, 4))], 0.5, None, 6, 1)[0].tolist() == [[0.5] * 4]


@pytest.mark.parametrize("places", [(), (3, 4)])
def test_gradients_of_biases(places: tuple[int, ...]) -> None:
    """One number a map, or one at every place of it."""
    rng = np.random.default_rng(0)
    y, g = rng.normal(size=(2, 5, 3, 4, 6)).astype(np.float32)
    bias = rng.normal(size=(*places, 6)).astype(np.float32)
    found, pull = jax.vjp(cpu_add_bias, y, bias)
    np.testing.assert_array_equal(found, y + bias.reshape((1,) * (4 - bias.ndim) + bias.shape))
    np.testing.assert_array_equal(pull(g)[0], g)
    wanted = np.float64(g).sum(axis=tuple(range(4 - bias.ndim)))
    np.testing.assert_allclose(pull(g)[1], wanted, rtol=1e-5, atol=1e-5)
