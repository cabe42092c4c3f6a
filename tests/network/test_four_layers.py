"""The four-layer nets: layers worked out by hand, scores against NumPy float64, rates and decays."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from alexnet_jax.config.building import build
from alexnet_jax.config.fields import Config
from alexnet_jax.learning.augment import draw_colours, random_view
from alexnet_jax.learning.optimizer import make_optimizer
from alexnet_jax.learning.schedule import learning_rates, rates_of
from alexnet_jax.network.shapes import layer_sizes
from alexnet_jax.network.variants import make_network
from configs import four_layers, variants
from tests.learning.steps import pixels_of
from tests.network import reference
from tests.network.networks import call, following, parts, redrawn

# Weights and biases; a local layer has kernels and a bias for each of 6 x 6 places.
THIRTEEN = {
    "conv1": 25 * 3 * 64 + 64,
    "conv2": 25 * 64 * 64 + 64,
    "conv3": 36 * (9 * 64 * 32 + 32),
    "conv4": 36 * (9 * 32 * 32 + 32),
    "fc8": 36 * 32 * 10 + 10,
}
ELEVEN = THIRTEEN | {"conv3": 36 * (9 * 64 * 64 + 64), "conv4": 36 * (9 * 64 * 32 + 32)}
# Whole pictures: 8 x 8 places.
WHOLE = THIRTEEN | {
    "conv3": 64 * (9 * 64 * 32 + 32),
    "conv4": 64 * (9 * 32 * 32 + 32),
    "fc8": 64 * 32 * 10 + 10,
}
LAYERS = {"paper": THIRTEEN, "lrn": THIRTEEN, "eleven": ELEVEN, "relu": WHOLE, "tanh": WHOLE}
CROPS = "input 24, conv1 24, pool1 12, conv2 12, pool2 6, conv3 6, conv4 6"
SIZES = dict.fromkeys(LAYERS, CROPS) | dict.fromkeys(
    ("relu", "tanh"), "input 32, conv1 32, pool1 16, conv2 16, pool2 8, conv3 8, conv4 8"
)


def recipe(names: str) -> Config:
    return build(four_layers.get_config(names).to_dict() | {"init_from": ""})


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    """Parameters of every layer, the sides of its maps, and what it starts from."""
    network = recipe(name).network
    model = nnx.eval_shape(lambda: make_network(network, 0))
    shapes = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    assert {layer: sum(x.size for x in jax.tree.leaves(shapes[layer])) for layer in shapes} == LAYERS[name]
    assert ", ".join(f"{layer} {side}" for layer, side in layer_sizes(network).items()) == SIZES[name]
    deviations = {layer: start.deviation for layer, start in network.layers().items()}
    assert deviations == {"conv1": 1e-4, "conv2": 0.01, "conv3": 0.04, "conv4": 0.04, "fc8": 0.01}
    assert {start.bias for start in network.layers().values()} == {0.0}


@pytest.mark.parametrize("name", LAYERS)
def test_scores_against_numpy(name: str) -> None:
    """Weights are large enough for every layer, and for the normalisation as stated, to matter."""
    large = {"conv1": 0.005 if name == "tanh" else 0.1, "conv2": 0.02, "conv3": 0.05, "conv4": 0.05}
    network = redrawn(recipe(name).network, large, 0.05, dict.fromkeys(("conv1", "conv3", "fc8"), 0.3))
    graph, params = parts(network)
    images = np.random.default_rng(0).normal(0, 60, (2, *2 * (network.image_size,), 3)).astype(np.float32)
    found = call(graph, params, images, (1, 1))
    for image, scores in zip(images, found, strict=True):
        wanted = reference.forward(params, np.float64(image), network)
        assert np.ptp(wanted) > 0.1
        np.testing.assert_allclose(scores, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_normalisation_alone() -> None:
    """`lrn` differs from the 13 % net where its normalisation stands; that of `eleven` is the same."""
    plain, with_lrn, eleven = (recipe(name) for name in ("paper", "lrn", "eleven"))
    lrn = with_lrn.network.lrn
    assert (lrn.size, lrn.k, lrn.alpha, lrn.alpha_times, lrn.beta) == (9, 1.0, 0.001, "mean", 0.75)
    then = [conv.then for conv in with_lrn.network.convs().values()]
    assert then[:2] == [("activation", "max_pool", "lrn"), ("activation", "lrn", "max_pool")]
    assert then[2:] == [conv.then for conv in plain.network.convs().values()][2:]
    assert eleven.network.lrn == lrn
    pooled = ("activation", "max_pool")
    network = following(with_lrn.network, conv1=pooled, conv2=pooled)
    for without_lrn in (dataclasses.replace(with_lrn, network=network), recipe("lrn,no_lrn")):
        assert without_lrn.expected.views == 0  # its result is not known
        assert dataclasses.replace(without_lrn, expected=plain.expected) == plain


def decays(config: Config) -> dict[str, float]:
    """The decay of weights of one without a gradient, in learning rates."""
    ones = {layer: {"kernel": np.ones(2), "bias": np.ones(2)} for layer in config.network.layers()}
    optimizer = make_optimizer(config.optimizer)
    rates = rates_of(1, 1)
    still = jax.tree.map(np.zeros_like, ones)
    updates, _ = optimizer.update(still, optimizer.init(ones), ones, rates=rates)
    assert not any(np.any(change["bias"]) for change in updates.values())
    return {layer: -round(float(change["kernel"][0]), 6) for layer, change in updates.items()}


@pytest.mark.parametrize(
    ("name", "local", "last"),
    [("paper", 0.004, 0.004), ("lrn", 0.004, 0.004), ("eleven", 0.004, 0.01), ("relu", 0, 0), ("tanh", 0, 0)],
)
def test_decays(name: str, local: float, last: float) -> None:
    """None in the convolutions."""
    assert decays(recipe(name)) == {"conv1": 0, "conv2": 0, "conv3": local, "conv4": local, "fc8": last}


@pytest.mark.parametrize("name", ["paper", "eleven", "lrn"])
def test_rates(name: str) -> None:
    """epsW .001 and epsB .002 for 350 + 150 epochs, a tenth for 10, a hundredth for 10."""
    config = recipe(name)
    assert (config.train.epochs, config.train.batch_size, config.optimizer.momentum) == (520, 128, 0.9)
    for epoch, tenths in ((0, 0), (499.9, 0), (500, 1), (509.9, 1), (510, 2), (519.9, 2)):
        found = learning_rates(config.schedule, epoch, config.train.epochs, [0.1] * 500)
        for own in found.values():
            wanted = {"kernel": 0.001 / 10**tenths, "bias": 0.002 / 10**tenths}
            assert own == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_figure_1_regularises_nothing(name: str) -> None:
    """Every picture is seen whole and as it is; one rate throughout; else the nets are one."""
    config = recipe(name)
    size = config.data.size
    picture = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    looks = pixels_of(np.full((size, size, 3), 120.0), np.eye(3), config.augment)
    keys = jax.random.split(jax.random.key(0), 8)
    colours = draw_colours(keys, looks, np.float32(1), config.augment)

    def look(key: jax.Array, colour: object) -> jax.Array:
        return random_view(picture, key, colour, looks, config.network.image_size, config.augment)

    views = jax.vmap(look)(keys, colours)
    np.testing.assert_array_equal(views, np.tile(picture - np.float32(120), (8, 1, 1, 1)))
    assert config.network.dropout == 0
    found = [learning_rates(config.schedule, epoch, 40, [0.5] * 9) for epoch in range(40)]
    assert len({rates["conv1"]["kernel"] for rates in found}) == 1
    both = [four_layers.get_config(names).to_dict() for names in ("relu", "tanh")]
    for values, activation in zip(both, ("relu", "tanh"), strict=True):
        assert values["network"].pop("activation") == activation
        values["schedule"].pop("learning_rate")
    assert both[0] == both[1]


def test_with_the_variants_of_all() -> None:
    """Narrower, in more towers, with other layers; the sixth convolution is as wide as the fourth."""
    for name in variants.VARIANTS:
        for own in ("paper", "eleven"):
            assert min(layer_sizes(recipe(f"{own},{name}").network).values()) >= 1
    assert recipe("half").network.conv1.width == 32
    assert recipe("eleven,four_towers").network.towers == 4
    assert recipe("eleven,six_convs").network.conv6.width == 32
    with pytest.raises(ValueError, match="no variant 'elven'; the nearest name is eleven"):
        recipe("elven")
