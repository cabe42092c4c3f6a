"""The step on narrow networks: tower counts, float64 at the paper's rate, communication and its control."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from alexnet_jax.config import Config
from alexnet_jax.learning import step as step_module
from alexnet_jax.learning.metrics import Totals
from alexnet_jax.learning.step import Batch, EvaluationStep, make_evaluation_step, make_train_step
from alexnet_jax.mesh import make_mesh
from alexnet_jax.network.alexnet import AlexNet
from alexnet_jax.network.layers import Towers, cross
from tests.learning.collectives import collectives
from tests.learning.steps import (
    first_state,
    random_batch,
    random_pixels,
    random_rows,
    relative_error,
    train_steps,
)


def with_network(config: Config, **fields: object) -> Config:
    return dataclasses.replace(config, network=dataclasses.replace(config.network, **fields))


@pytest.mark.parametrize(("towers", "shape"), [(1, (2, 1)), (2, (4, 2)), (4, (2, 4)), (4, (1, 2))])
def test_narrow_parity(narrow: Config, towers: int, shape: tuple[int, int]) -> None:
    """float64 at the paper's rate: a mesh against 1x1, with a class count that does not divide."""
    config = with_network(narrow, towers=towers, classes=11, compute_dtype="float64")
    with jax.enable_x64(True):
        assert relative_error(train_double(config, shape), train_double(config, (1, 1))) < 1e-10


def train_double(config: Config, shape: tuple[int, int]) -> dict:
    """Parameters after three steps in float64."""
    mesh = make_mesh(*shape)
    state = first_state(config, mesh)
    state = jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, state)
    step, looks = make_train_step(config, mesh), random_pixels(config)
    for i in range(3):
        state, _ = step(state, Totals.zero(), looks, random_batch(config, mesh, i), np.float64(0.01))
    return jax.device_get(state.params)


def test_padded_classes_never_count(narrow: Config) -> None:
    """Eleven classes on two towers: the twelfth output is cut off, and its weights never move."""
    config = with_network(narrow, classes=11)
    _, run = train_steps(config, make_mesh(1, 2), [0.01] * 2)
    first, last = run["params"][0]["fc8"], run["params"][-1]["fc8"]
    assert last["bias"].shape == (2, 6)
    assert np.all(last["bias"][1, 5] == first["bias"][1, 5])
    assert np.all(last["bias"][1, :5] != first["bias"][1, :5])


def test_an_added_crossing_is_caught(narrow: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control of the communication tests: a sixth gather shows in the count."""

    class Leaky(AlexNet):
        def normalise(self, x: Towers) -> Towers:
            joined, maps = cross(super().normalise(x)), x[0].shape[-1]
            return [tower[..., :maps] for tower in joined]

    def gathers() -> int:
        text, _ = train_steps(narrow, make_mesh(1, 2), [])
        return sum(c.kind == "all-gather" for c in collectives(text))

    assert gathers() == 5
    monkeypatch.setattr(step_module, "AlexNet", Leaky)
    assert gathers() == 7


def test_bfloat16_keeps_float32_parameters(narrow: Config) -> None:
    """bfloat16 computes near float32, and leaves parameters and velocity in float32."""
    mesh = make_mesh(1, 2)
    _, exact = train_steps(narrow, mesh, [0.01] * 3)
    text, rough = train_steps(with_network(narrow, compute_dtype="bfloat16"), mesh, [0.01] * 3)
    assert "bf16[" in text
    leaves = jax.tree.leaves((rough["params"], rough["velocity"]))
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}
    np.testing.assert_allclose(rough["losses"], exact["losses"], rtol=2e-2)
    assert rough["losses"] != exact["losses"]


def test_randomness_follows_seed_and_step(narrow: Config) -> None:
    """The same batch gives another loss at another step and with another seed, and the same again."""
    mesh = make_mesh(1, 1)
    state, looks, batch = first_state(narrow, mesh), random_pixels(narrow), random_batch(narrow, mesh)
    steps = [make_train_step(dataclasses.replace(narrow, seed=seed), mesh) for seed in (0, 1)]

    def loss(seed: int, at: int) -> float:
        start = jax.tree.map(jnp.copy, dataclasses.replace(state, step=jnp.int32(at)))
        return steps[seed](start, Totals.zero(), looks, batch, np.float32(0))[1].means()["loss"]

    losses = [loss(0, 0), loss(0, 1), loss(1, 0)]
    assert len(set(losses)) == 3
    assert loss(0, 0) == losses[0]


def test_first_weights_depend_on_the_seed(narrow: Config) -> None:
    one, two = (first_state(dataclasses.replace(narrow, seed=seed), make_mesh(1, 1)) for seed in (0, 1))
    kernels = (state.params["conv1"]["kernel"] for state in (one, two))
    assert relative_error(*map(np.asarray, kernels)) > 1


@pytest.mark.parametrize("views", [1, 10])
def test_evaluation_counts_every_picture_once(narrow: Config, views: int) -> None:
    """Padded batches on a 2x2 mesh against one unpadded batch on 1x1."""
    pictures, labels = random_rows(narrow, 10)
    whole = evaluate(narrow, (1, 1), views, [(pictures, labels, np.ones(10, np.float32))])
    padding = (np.repeat(pictures[:1], 2, axis=0), np.repeat(labels[:1], 2), np.zeros(2, np.float32))
    ones = np.ones(4, np.float32)
    rest = (pictures[8:], labels[8:], ones[:2])
    pieces = [(pictures[:4], labels[:4], ones), (pictures[4:8], labels[4:8], ones)]
    last = tuple(np.concatenate(pair) for pair in zip(rest, padding, strict=True))
    found = evaluate(narrow, (2, 2), views, [*pieces, last])
    assert found["images"] == whole["images"] == 10
    np.testing.assert_allclose(list(found.values()), list(whole.values()), rtol=1e-5)


@functools.cache
def evaluation_step(config: Config, shape: tuple[int, int], views: int) -> EvaluationStep:
    return make_evaluation_step(config, make_mesh(*shape), views)


def test_ten_views_average_probabilities(narrow: Config) -> None:
    """One picture, ten views: the loss of the mean of the probabilities that each view would have."""
    pictures, labels = random_rows(narrow, 1)
    one = np.ones(1, np.float32)
    found = evaluate(narrow, (1, 1), 10, [(pictures, labels, one)])["loss"]
    size, border = narrow.network.image_size, narrow.data.size - narrow.network.image_size
    chances = []
    for top, left in [(0, 0), (0, border), (border // 2,) * 2, (border, 0), (border, border)]:
        for direction in (1, -1):
            # The centre of a picture that is shifted so that the view lies there.
            shifted = np.roll(pictures, (border // 2 - top, border // 2 - left), axis=(1, 2))
            window = slice(border // 2, border // 2 + size)
            shifted[:, window, window] = shifted[:, window, window][:, :, ::direction]
            mean = np.roll(random_pixels(narrow).mean, (border // 2 - top, border // 2 - left), axis=(0, 1))
            mean[window, window] = mean[window, window][:, ::direction]
            loss = evaluate(narrow, (1, 1), 1, [(shifted, labels, one)], mean)["loss"]
            chances.append(np.exp(-loss))
    assert np.ptp(chances) > 0
    assert found == pytest.approx(-np.log(np.mean(chances)), rel=1e-5)


def evaluate(
    config: Config, shape: tuple[int, int], views: int, batches: list, mean: np.ndarray | None = None
) -> dict[str, float]:
    mesh, looks = make_mesh(*shape), random_pixels(config)
    step = evaluation_step(config, shape, views)
    if mean is not None:
        looks = dataclasses.replace(looks, mean=mean)
    params, totals = first_state(config, mesh).params, Totals.zero()
    for batch in batches:
        totals = step(params, totals, looks, Batch(*batch))
    return totals.means() | {"images": float(totals.images)}
