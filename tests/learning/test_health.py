"""A step that finds what is no number changes nothing, and says in which layers it was."""

import dataclasses

import jax
import numpy as np
import pytest

from alexnet_jax.config.fields import Config
from alexnet_jax.learning import loss as loss_module
from alexnet_jax.learning.metrics import Totals
from alexnet_jax.learning.schedule import Pace
from alexnet_jax.learning.state import Batch, State, state_shardings
from alexnet_jax.learning.step import Health, make_train_step
from alexnet_jax.sharding.mesh import make_mesh
from tests.learning.poison import poison
from tests.learning.steps import first_state, random_pixels, random_rows, relative_error, velocity

RATE, MARK = 0.01, 9


@pytest.mark.parametrize("shape", [pytest.param((1, 1), marks=pytest.mark.slow), (4, 2)], ids=str)
def test_what_is_no_number(shape: tuple[int, int], narrow: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one row of devices, or one tower: all of them keep what they had, and hear of it."""
    monkeypatch.setattr(loss_module, "score", poison(MARK))
    mesh = make_mesh(*shape)
    step, pictures, looks = make_train_step(narrow, mesh), random_rows(narrow, 8)[0], random_pixels(narrow)

    def run(start: State, labels: np.ndarray) -> tuple[State, Health]:
        state = jax.device_put(start, state_shardings(narrow, mesh))
        state, _, health = step(state, Totals.zero(), looks, Batch(pictures, labels), Pace.steady(RATE))
        return jax.device_get((state, health))

    start, labels = first_state(narrow), np.arange(8, dtype=np.int32)
    moved, health = run(start, labels)
    assert int(moved.step) == 1
    assert health.loss == pytest.approx(np.log(10), abs=0.1)
    # v = -rate (g + decay w), where biases have no decay.
    layers, decay = velocity(moved), narrow.optimizer.weight_decay
    gradients = {
        name: {
            kind: v / RATE + decay * start.params[name][kind] * (kind == "kernel")
            for kind, v in layer.items()
        }
        for name, layer in layers.items()
    }
    norms = [
        np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in gradients[name].values()))
        for name in narrow.network.layers()
    ]
    assert relative_error(health.norms, np.array(norms)) < 1e-5

    labels[5] = MARK  # one picture's gradient is no number, its loss is one
    kept, health = run(start, labels)
    assert np.isfinite(health.loss)
    assert np.all(np.isnan(health.norms))
    jax.tree.map(np.testing.assert_array_equal, kept, start)

    bias = start.params["fc8"]["bias"].copy()
    bias[1, 0] = np.nan  # one tower's
    damaged = dataclasses.replace(start, params=start.params | {"fc8": start.params["fc8"] | {"bias": bias}})
    kept, health = run(damaged, np.arange(8, dtype=np.int32))
    assert np.isnan(health.loss)
    jax.tree.map(np.testing.assert_array_equal, kept, damaged)
