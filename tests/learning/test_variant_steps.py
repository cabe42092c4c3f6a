"""Every variant learns alike on one device and on a mesh."""

import dataclasses

import jax
import pytest

from alexnet_jax.build import build
from alexnet_jax.config import Config
from configs import imagenet, variants
from tests.learning.steps import relative_error, train_double
from tests.network.test_variants import LAYERS

ELSEWHERE = ("paper", "no_dropout")  # what test_step compares, and a simpler program of the same kind

pytestmark = pytest.mark.usefixtures("half_optimised")


def narrow(names: str) -> Config:
    config = imagenet.get_config()
    imagenet.narrow(config.network, (8, 16, 16, 16, 8, 16, 32))
    config.network.image_size, config.network.classes, config.data.size = 64, 11, 72
    config.train.batch_size = 8
    found = build(variants.apply(config, names).to_dict())
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
