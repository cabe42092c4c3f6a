"""Every variant learns alike on one device and on a mesh."""

import dataclasses

import jax
import pytest
from ml_collections import ConfigDict

from alexnet_jax.build import build
from alexnet_jax.config import Config
from configs import four_layers, imagenet, variants
from tests.learning.steps import relative_error, train_double
from tests.network.test_variants import LAYERS

ELSEWHERE = ("paper", "no_dropout")  # what test_step compares, and a simpler program of the same kind

pytestmark = pytest.mark.usefixtures("half_optimised")


def narrow(names: str) -> Config:
    config = imagenet.get_config()
    imagenet.narrow(config.network, (8, 16, 16, 16, 8, 16, 32))
    config.network.image_size, config.network.classes, config.data.size = 64, 11, 72
    config.train.batch_size = 8
    return double(variants.apply(config, names))


def double(config: ConfigDict) -> Config:
    """The config, computed in float64."""
    found = build(config.to_dict())
    return dataclasses.replace(found, network=dataclasses.replace(found.network, compute_dtype="float64"))


@pytest.mark.parametrize("names", [*(name for name in LAYERS if name not in ELSEWHERE), "source,six_convs"])
def test_parity(names: str) -> None:
    """Three steps in float64, with 11 classes: the meshes 1x2 and 2x2 (2x1 for one tower) against 1x1."""
    config = narrow(names)
    shapes = ((1, 2), (2, 2)) if config.network.towers > 1 else ((2, 1), (4, 1))
    with jax.enable_x64(True):
        alone = train_double(config, (1, 1))
        for shape in shapes:
            assert relative_error(train_double(config, shape), alone) < 1e-10, shape


def test_four_layers() -> None:
    """A narrow 11 % net of CIFAR-10: the gradients of kernels at every place are summed over rows too."""
    config = four_layers.get_config("eleven")
    config.train.batch_size = 8
    for name in ("conv1", "conv2", "conv3", "conv4"):
        config.network[name].width = 4
    with jax.enable_x64(True):
        alone, rows = (train_double(double(config), shape) for shape in ((1, 1), (2, 1)))
        assert relative_error(rows, alone) < 1e-10
