"""The update rule against a NumPy loop written from section 5."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from alexnet_jax.config import OptimizerConfig
from alexnet_jax.learning.optimizer import make_optimizer
from alexnet_jax.learning.schedule import Pace

PAPER = OptimizerConfig(momentum=0.9, weight_decay=0.0005, decay_biases=False, layer_decay=())


@pytest.mark.parametrize("decay_biases", [False, True])
def test_six_steps_with_a_drop(decay_biases: bool) -> None:
    """v <- 0.9 v - 0.0005 rate w - rate g; w <- w + v; the velocity outlives the drop of the rate."""
    rng = np.random.default_rng(0)
    shapes = {"kernel": (2, 3, 4), "bias": (2, 4)}
    w = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    v = {name: np.zeros(shape) for name, shape in shapes.items()}
    optimizer = make_optimizer(dataclasses.replace(PAPER, decay_biases=decay_biases))
    params = {"conv1": {name: np.float32(value) for name, value in w.items()}}
    state = optimizer.init(params)
    for rate in (0.01, 0.01, 0.01, 0.001, 0.001, 0.001):
        g = {name: rng.normal(size=shape) for name, shape in shapes.items()}
        for name in shapes:
            decay = 0.0005 if name == "kernel" or decay_biases else 0
            v[name] = 0.9 * v[name] - decay * rate * w[name] - rate * g[name]
            w[name] = w[name] + v[name]
        gradients = {"conv1": {name: np.float32(value) for name, value in g.items()}}
        updates, state = optimizer.update(gradients, state, params, rates=Pace.steady(rate).rates)
        params = optax.apply_updates(params, updates)
    for name in shapes:
        np.testing.assert_allclose(params["conv1"][name], w[name], rtol=1e-5)
        np.testing.assert_allclose(state[-1].trace["conv1"][name], v[name], rtol=1e-4)


def test_velocity_is_shaped_like_the_parameters() -> None:
    params = {"fc8": {"kernel": np.zeros((2, 3, 4), np.float32), "bias": np.zeros((2, 4), np.float32)}}
    velocity = make_optimizer(PAPER).init(params)[-1].trace
    assert jax.tree.map(np.shape, velocity) == jax.tree.map(np.shape, params)
