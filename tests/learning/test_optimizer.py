"""The update rule against a NumPy loop written from section 5."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from alexnet_jax.config.fields import OptimizerConfig
from alexnet_jax.learning.optimizer import make_optimizer
from alexnet_jax.learning.schedule import Pace, rates_of

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


def test_layers_of_their_own() -> None:
    """Rates for weights and biases of each layer, a frozen one, and a decay of its own: against NumPy."""
    rng = np.random.default_rng(1)
    config = dataclasses.replace(PAPER, layer_decay=(("fc8", 0.01),))
    optimizer, shapes = make_optimizer(config), {"kernel": (2, 3, 4), "bias": (2, 4)}
    w = {layer: {k: rng.normal(size=n) for k, n in shapes.items()} for layer in ("conv1", "conv4", "fc8")}
    v = jax.tree.map(np.zeros_like, w)
    params = jax.tree.map(np.float32, w)
    start, state = params, optimizer.init(params)
    own = {"conv1": (0.0, 0.0), "conv4": (0.01, 0.02), "fc8": (0.005, 0.03)}
    rates = rates_of(np.nan, np.nan)
    for layer, pair in own.items():
        rates[layer] = dict(zip(("kernel", "bias"), map(np.float32, pair), strict=True))
    for _ in range(5):
        g = jax.tree.map(lambda x: rng.normal(size=x.shape), w)
        for layer, (weights, biases) in own.items():
            decay = 0.01 if layer == "fc8" else 0.0005
            kernel, bias = w[layer]["kernel"], w[layer]["bias"]
            v[layer]["kernel"] = 0.9 * v[layer]["kernel"] - weights * (decay * kernel + g[layer]["kernel"])
            v[layer]["bias"] = 0.9 * v[layer]["bias"] - biases * g[layer]["bias"]
            w[layer] = {"kernel": kernel + v[layer]["kernel"], "bias": bias + v[layer]["bias"]}
        updates, state = optimizer.update(jax.tree.map(np.float32, g), state, params, rates=rates)
        params = optax.apply_updates(params, updates)
    jax.tree.map(lambda found, wanted: np.testing.assert_allclose(found, wanted, rtol=1e-5), params, w)
    jax.tree.map(np.testing.assert_array_equal, params["conv1"], start["conv1"])
