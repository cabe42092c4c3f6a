"""Five steps of both presets against NumPy loops: pictures, network, gradients, rates and the update.

What the presets have to be is written down here once more, from the paper and from the authors' config 145;
of ours only the widths and the sizes of pictures are chosen, and the first weights.
"""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import numpy as np
import pytest

from alexnet_jax.config.building import build
from alexnet_jax.config.fields import (
    BatchNormConfig,
    Config,
    ConvConfig,
    DenseConfig,
    LayerConfig,
    LrnConfig,
    MapNormConfig,
    NetworkConfig,
    Operation,
    PoolConfig,
)
from alexnet_jax.learning.metrics import Totals
from alexnet_jax.learning.optimizer import make_optimizer
from alexnet_jax.learning.schedule import make_pace
from alexnet_jax.learning.state import State, state_shardings
from alexnet_jax.learning.step import make_train_step
from alexnet_jax.sharding.mesh import make_mesh
from configs import imagenet, variants
from tests.learning.by_hand import Moment, Moved, Recipe, regress, train
from tests.learning.steps import (
    blotched_rows,
    pixels_of,
    random_batch,
    random_looks,
    relative_error,
    velocity,
)
from tests.network.networks import following, parts
from tests.network.reference import ACTIVATIONS, Params, activate, scores

pytestmark = pytest.mark.usefixtures("less_optimised")

# The source's 32 pictures with one crop lie on both rows of a mesh of two, and eight have another.
BATCH, SIDE = 40, 76


def conv(
    deviation: float, bias: float, width: int, size: int, stride: int, padding: int, *then: Operation
) -> ConvConfig:
    return ConvConfig(deviation, bias, width, size, stride, padding, "up", then)


# Sections 3.3-3.5, with few maps. At 68 pixels the maps are 16, 8, 4 and 2 wide: the last window of conv1 and
# of every pool overlaps the end. The deviations let every layer and normalisation matter.
PAPER = NetworkConfig(
    towers=2,
    image_size=68,
    classes=9,
    conv1=conv(0.05, 0.0, 16, 11, 4, 0, "activation", "lrn", "max_pool"),
    conv2=conv(0.10, 1.0, 32, 5, 1, 2, "activation", "lrn", "max_pool"),
    conv3=conv(0.05, 0.0, 24, 3, 1, 1, "activation"),
    conv4=conv(0.10, 1.0, 24, 3, 1, 1, "activation"),
    conv5=conv(0.10, 1.0, 16, 3, 1, 1, "activation", "max_pool"),
    conv6=conv(0.10, 1.0, 0, 3, 1, 1, "activation"),
    fc6=DenseConfig(deviation=0.10, bias=1.0, width=20),
    fc7=DenseConfig(deviation=0.10, bias=1.0, width=36),
    fc8=LayerConfig(deviation=0.10, bias=0.0),
    crossings=("conv3", "fc6", "fc7", "fc8"),
    unshared=(),
    activation="relu",
    lrn=LrnConfig(
        size=5,
        k=2.0,
        alpha=1e-4,
        alpha_times="sum",
        beta=0.75,
        over="tower",
    ),
    map_norm=MapNormConfig(size=5, k=1.0, alpha=1e-3, beta=0.75),
    pool=PoolConfig(window=3, stride=2, rounding="up"),
    batch_norm=BatchNormConfig(epsilon=1e-4, decay=0.9),
    dropout=0.5,
    precision="float64",
)
# Alpha times the mean of squares, before conv1's ReLU; and normalisation within the maps of conv2.
SOURCE = dataclasses.replace(
    following(
        PAPER,
        conv1=("lrn", "activation", "max_pool"),
        conv2=("activation", "lrn", "map_norm", "max_pool"),
    ),
    lrn=dataclasses.replace(PAPER.lrn, alpha_times="mean"),
)
NETS = {"paper": PAPER, "source": SOURCE}

BORDER = SIDE - PAPER.image_size
RECIPES = {
    "paper": Recipe(PAPER.image_size, share=1, last_place=BORDER - 1, mean_follows=True, divides=False),
    "source": Recipe(PAPER.image_size, share=32, last_place=BORDER, mean_follows=False, divides=True),
}


def paper(epoch: float, errors: tuple[float, ...], rate: float) -> Moment:
    """One rate for all layers, which falls where the error has not for three epochs; noise to the end."""
    return Moment(epoch, errors, rate, rate, (rate, rate), 0.1)


def source(epoch: float, rate: float, conv1: tuple[float, float], noise: float) -> Moment:
    """Biases learn twice as fast as weights did at first, and stay so; conv1's weights go ahead of others."""
    return Moment(epoch, (), rate, 0.02, conv1, noise)


MOMENTS = {
    "paper": (
        paper(0, (), 0.01),
        paper(4, (0.9, 0.8, 0.8, 0.81), 0.01),
        paper(5, (0.9, 0.8, 0.8, 0.81, 0.82), 0.001),
        paper(6, (0.9, 0.8, 0.8, 0.81, 0.82, 0.79), 0.001),
        paper(9, (0.9, 0.8, 0.8, 0.81, 0.82, 0.79, 0.8, 0.79, 0.8), 0.0001),
    ),
    # The rate falls at epochs 25 and 51, conv1's at 67 with the end of the noise; at 72 its weights freeze.
    "source": (
        source(24.9, 0.01, (0.01, 0.02), 0.1),
        source(25.1, 0.001, (0.001, 0.02), 0.1),
        source(66.9, 0.0001, (0.0001, 0.02), 0.1),
        source(67.1, 0.0001, (0.00001, 0.02), 0.0),
        source(72.1, 0.0001, (0.0, 0.02), 0.0),
    ),
}


def preset(name: str) -> Config:
    """Ours, narrow."""
    config, net = imagenet.get_config(), NETS[name]
    imagenet.narrow(config.network, tuple(layer.width for layer in (net.convs() | net.hidden()).values()))
    config.network.image_size, config.network.classes, config.data.size = net.image_size, net.classes, SIDE
    config.train.batch_size = BATCH
    found = build(variants.apply(config, name).to_dict())
    return dataclasses.replace(found, network=dataclasses.replace(found.network, precision="float64"))


def first_weights(net: NetworkConfig) -> Params:
    return jax.tree.map(np.float64, parts(net)[1])


@functools.cache
def wanted(name: str) -> tuple[Moved, ...]:
    """NumPy's five steps."""
    config, net, moments = preset(name), NETS[name], MOMENTS[name]
    batches = [blotched_rows(config, BATCH, i) for i in range(len(moments))]
    start, looks = first_weights(net), random_looks(config)
    return tuple(train(start, batches, moments, looks, net, RECIPES[name], config.seed))


def found(name: str, shape: tuple[int, int]) -> Iterator[tuple[State, float]]:
    """Our states after each of five steps, and the losses."""
    config, mesh = preset(name), make_mesh(*shape)
    params, looks = first_weights(NETS[name]), pixels_of(*random_looks(config), config.augment)
    start = State(np.zeros((), np.int32), params, {}, make_optimizer(config.optimizer).init(params))
    state, step = jax.device_put(start, state_shardings(config, mesh)), make_train_step(config, mesh)
    for i, moment in enumerate(MOMENTS[name]):
        pace = make_pace(config, moment.epoch, config.train.epochs, moment.errors)
        batch = random_batch(config, mesh, i, blotched_rows)
        state, totals, _ = step(state, Totals.zero(), looks, batch, pace)
        yield jax.device_get(state), totals.means()["loss"]


@pytest.mark.parametrize("shape", [pytest.param((1, 1), marks=pytest.mark.slow), (2, 2)], ids=str)
@pytest.mark.parametrize("name", NETS)
def test_five_steps(name: str, shape: tuple[int, int]) -> None:
    """The loss of each, and velocity and parameters after it, in float64."""
    tolerance = 1e-6  # the mean, the noise and the rates come in float32
    with jax.enable_x64(True):
        for (state, loss), by_hand in zip(found(name, shape), wanted(name), strict=True):
            assert loss == pytest.approx(by_hand.loss, rel=tolerance)
            assert relative_error(velocity(state), by_hand.velocity) < tolerance
            assert relative_error(state.params, by_hand.params) < tolerance
            assert all(
                np.any(g) for g in jax.tree.leaves(by_hand.gradients)
            )  # there was something to compare


@pytest.mark.parametrize("name", [*NETS, "unshared"])
def test_the_reference_by_differences(name: str) -> None:
    """NumPy's gradient of each array is the slope of NumPy's loss along a random direction."""
    net = NETS[name] if name in NETS else dataclasses.replace(PAPER, unshared=("conv3",))
    rng = np.random.default_rng(0)
    params, images, labels = first_weights(net), rng.normal(0, 60, (3, 68, 68, 3)), np.array([0, 8, 4])
    kept = {
        layer: list(rng.integers(0, 2, (net.towers, 3, dense.width // net.towers)))
        for layer, dense in net.hidden().items()
    }

    def loss(params: Params) -> float:
        return regress(scores(params, images, net, kept)[0], labels)[0]

    z, back = scores(params, images, net, kept)
    gradients = back(regress(z, labels)[1])
    for layer, arrays in params.items():
        for kind, w in arrays.items():
            direction = rng.normal(size=w.shape)
            # As far as changes the loss by 1e-8: units hardly ever switch on or off on the way.
            direction *= 1e-8 / np.sum(gradients[layer][kind] * direction)
            ahead, behind = ({**params, layer: {**arrays, kind: w + d}} for d in (direction, -direction))
            assert (loss(ahead) - loss(behind)) / 2e-8 == pytest.approx(1, rel=1e-5), (layer, kind)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_the_references_activations_by_differences(kind: str) -> None:
    x = np.linspace(-3, 3, 20)
    slopes = (activate(x + 1e-6, kind)[0] - activate(x - 1e-6, kind)[0]) / 2e-6
    np.testing.assert_allclose(activate(x, kind)[1](np.ones(20)), slopes, rtol=1e-6)
