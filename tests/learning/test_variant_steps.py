"""Every variant learns alike on one device and on a mesh."""

import dataclasses

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from alexnet_jax.config.building import build
from alexnet_jax.config.fields import Config
from alexnet_jax.learning.metrics import Totals
from alexnet_jax.learning.schedule import Pace
from alexnet_jax.learning.state import state_shardings
from alexnet_jax.learning.step import make_train_step
from alexnet_jax.sharding.mesh import make_mesh
from configs import four_layers, imagenet, variants
from tests.learning.steps import (
    as_double,
    first_state,
    random_batch,
    random_pixels,
    relative_error,
    train_double,
)
from tests.network.networks import following
from tests.network.test_variants import LAYERS

TOGETHER = (
    "four_towers,lrn1_only,no_dropout",
    "source,six_convs",
    "batch_norm,sigmoid,no_conv3",
    "no_communication,tanh,no_fc7",
    "one_tower,non_overlapping_pool,no_conv4",
    "half,no_conv2,no_conv5,no_lrn",
    "no_conv3_crossing,no_fc6,lrn2_before_relu",
)

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
    return dataclasses.replace(found, network=dataclasses.replace(found.network, precision="float64"))


@pytest.mark.parametrize("names", TOGETHER)
def test_parity_together(names: str) -> None:
    """Three steps in float64, with 11 classes, of every variant beside others: four devices against one."""
    config = narrow(names)
    shape = (2, 2) if config.network.towers > 1 else (4, 1)
    with jax.enable_x64(True):
        assert relative_error(train_double(config, shape), train_double(config, (1, 1))) < 1e-10


def test_none_is_left_out() -> None:
    assert {name for names in TOGETHER for name in names.split(",")} == set(LAYERS) - {"paper"}


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4])
def test_parity_of_foreign_nets(devices: int) -> None:
    """LRN over all towers before and after pools, average pools, sizes rounded down."""
    config = narrow("paper")
    network = following(
        config.network, conv1=("activation", "average_pool", "lrn"), conv2=("lrn", "max_pool")
    )
    lrn, pool = (
        dataclasses.replace(network.lrn, over="all"),
        dataclasses.replace(network.pool, rounding="down"),
    )
    config = dataclasses.replace(config, network=dataclasses.replace(network, lrn=lrn, pool=pool))
    with jax.enable_x64(True):
        alone, found = (train_double(config, shape) for shape in ((1, 1), (devices // 2, 2)))
        assert relative_error(found, alone) < 1e-10


@pytest.mark.slow
def test_batch_norms_averages() -> None:
    """A step learns alike whatever they are, and moves all of them a tenth of the way to the same figures."""
    config = narrow("batch_norm")
    with jax.enable_x64(True):
        mesh, looks = make_mesh(2, 2), random_pixels(config)
        step, fresh = make_train_step(config, mesh), as_double(first_state(config))
        starts = [
            dataclasses.replace(fresh, averages=jax.tree.map(lambda x, by=by: x + by, fresh.averages))
            for by in (0.0, 3.0)
        ]
        found, losses = [], []
        for start in starts:
            state = jax.device_put(start, state_shardings(config, mesh))
            state, totals, _ = step(
                state, Totals.zero(), looks, random_batch(config, mesh), Pace.steady(0.01)
            )
            found.append(jax.device_get(state))
            losses.append(totals.means()["loss"])
    assert losses[0] == losses[1]
    jax.tree.map(np.testing.assert_array_equal, found[0].params, found[1].params)
    seen = [
        jax.tree.map(lambda now, old: 10 * now - 9 * old, end.averages, start.averages)
        for end, start in zip(found, starts, strict=True)
    ]
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6), *seen)
    assert set(seen[0]) == {"norm1", "norm2", "norm3", "norm4", "norm5"}
    assert all(np.all(norm["variance"] > 0) and np.any(norm["mean"]) for norm in seen[0].values())


@pytest.mark.slow
def test_four_layers() -> None:
    """A narrow 11 % net of CIFAR-10: the gradients of kernels at every place are summed over rows too."""
    config = four_layers.get_config("eleven")
    config.train.batch_size = 8
    for name in ("conv1", "conv2", "conv3", "conv4"):
        config.network[name].width = 4
    with jax.enable_x64(True):
        alone, rows = (train_double(double(config), shape) for shape in ((1, 1), (2, 1)))
        assert relative_error(rows, alone) < 1e-10
