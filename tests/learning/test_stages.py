"""Activations are what the network computes, on any mesh."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from alexnet_jax.config.fields import Config
from alexnet_jax.learning.prediction import TowerStatistics, make_activation_step, make_statistics_step
from alexnet_jax.learning.state import Batch, state_shardings
from alexnet_jax.network.shapes import layer_sizes, stage_names
from alexnet_jax.sharding.mesh import make_mesh
from tests.learning.steps import first_state, random_batch, random_pixels

STAGES = ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5", "fc6", "fc7", "fc8")
MESHES = [(1, 1), (1, 2), (4, 2)]


@pytest.fixture(scope="module")
def config(narrow: Config) -> Config:
    return narrow


def stages_on(config: Config, shape: tuple[int, int]) -> tuple[dict[str, np.ndarray], Batch]:
    mesh = make_mesh(*shape)
    batch = random_batch(config, mesh)
    state = jax.device_put(first_state(config), state_shardings(config, mesh))
    step = make_activation_step(config, mesh, stage_names(config.network))
    return jax.device_get(step(state, random_pixels(config), batch.pictures)), jax.device_get(batch)


def test_names_and_shapes(config: Config) -> None:
    """Every stage has all towers, all pictures, and the sizes of Figure 2."""
    found, batch = stages_on(config, (1, 1))
    assert stage_names(config.network) == STAGES
    assert set(found) == set(STAGES)
    for name, side in layer_sizes(config.network).items():
        if name != "input":
            assert found[name].shape[:4] == (2, len(batch.labels), side, side)
    assert found["fc8"].shape == (2, len(batch.labels), -(-config.network.classes // 2))


@pytest.mark.parametrize("shape", [(1, 2), (4, 2)])
def test_same_on_any_mesh(config: Config, shape: tuple[int, int]) -> None:
    alone, _ = stages_on(config, (1, 1))
    spread_out, _ = stages_on(config, shape)
    for name in STAGES:
        np.testing.assert_allclose(
            spread_out[name], alone[name], rtol=1e-4, atol=1e-4 * np.abs(alone[name]).max()
        )


def test_stages_lead_to_the_scores(config: Config) -> None:
    """fc8 is made of fc7, which is made of fc6, by hand; a pool is the largest of 3 x 3."""
    found, _ = stages_on(config, (1, 2))
    params = first_state(config).params
    keep = 1 - config.network.dropout
    for below, above in (("fc6", "fc7"), ("fc7", "fc8")):
        both = np.concatenate(keep * found[below], axis=-1).astype(np.float64)
        for t in range(2):
            made = both @ params[above]["kernel"][t] + params[above]["bias"][t]
            made = made if above == "fc8" else np.maximum(made, 0)
            np.testing.assert_allclose(found[above][t], made, rtol=1e-4, atol=1e-5)
    whole, small = found["conv5"], found["pool5"]
    np.testing.assert_array_equal(small[:, :, 0, 0], whole[:, :, :3, :3].max((2, 3)))


@pytest.mark.slow
@pytest.mark.parametrize("shape", MESHES)
def test_a_look_at_gradients(config: Config, shape: tuple[int, int]) -> None:
    """The loss's gradient at fc7 is by hand that of a softmax through fc8; at all stages it is not zero."""
    mesh = make_mesh(*shape)
    batch, looks = random_batch(config, mesh), random_pixels(config)
    state = jax.device_put(first_state(config), state_shardings(config, mesh))
    found = jax.device_get(make_statistics_step(config, mesh)(state, looks, batch))
    stages, host = stages_on(config, (1, 1))
    scores = np.concatenate(stages["fc8"], axis=-1)[:, : config.network.classes].astype(np.float64)
    likely = np.exp(scores - scores.max(1, keepdims=True))
    likely /= likely.sum(1, keepdims=True)
    slopes = (likely - np.eye(config.network.classes)[host.labels]) / len(host.labels)
    kernel = np.concatenate(list(first_state(config).params["fc8"]["kernel"]), axis=-1)
    below = slopes @ kernel[:, : config.network.classes].T * (1 - config.network.dropout)
    for t, half in enumerate(np.split(below, 2, axis=1)):
        np.testing.assert_allclose(found["fc7"][1].norm[t], np.linalg.norm(half), rtol=1e-4)
    for name in STAGES:
        seen, gradient = found[name]
        np.testing.assert_allclose(seen.mean, stages[name].reshape(2, -1).mean(1), rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(seen.zeros, (stages[name] == 0).reshape(2, -1).mean(1), atol=1e-3)
        assert (gradient.norm > 0).all()


def test_a_look() -> None:
    """Against NumPy, of numbers of which some are zero."""
    x = np.random.default_rng(0).normal(3, 2, (2, 50, 7)).astype(np.float32)
    x[1, :25] = 0
    found, flat = jax.device_get(TowerStatistics.of(jnp.asarray(x))), x.reshape(2, -1).astype(np.float64)
    np.testing.assert_allclose(found.mean, flat.mean(1), rtol=1e-5)
    np.testing.assert_allclose(found.deviation, flat.std(1), rtol=1e-5)
    np.testing.assert_allclose(found.norm, np.linalg.norm(flat, axis=1), rtol=1e-5)
    assert found.zeros.tolist() == [0, 0.5]
