"""The step on narrow networks: tower counts, float64 at the paper's rate, communication and its control."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from alexnet_jax.config.fields import Config
from alexnet_jax.learning.metrics import Totals
from alexnet_jax.learning.prediction import EvaluationStep, make_evaluation_step
from alexnet_jax.learning.schedule import Pace
from alexnet_jax.learning.state import Batch, State, state_shardings
from alexnet_jax.learning.step import make_train_step, no_totals
from alexnet_jax.network import variants
from alexnet_jax.network.alexnet import AlexNet
from alexnet_jax.network.layers import Towers
from alexnet_jax.sharding.mesh import make_mesh
from tests.learning.collectives import collectives
from tests.learning.steps import (
    Trainer,
    as_double,
    blotched_rows,
    first_state,
    random_batch,
    random_pixels,
    random_rows,
    relative_error,
    train_double,
    velocity,
)
from tests.network.networks import redrawn

pytestmark = pytest.mark.usefixtures("half_optimised")


@functools.cache
def trainer(config: Config, shape: tuple[int, int]) -> Trainer:
    """One for each config and mesh: compiling them is most of this file's time."""
    return Trainer(config, make_mesh(*shape))


def with_network(config: Config, **fields: object) -> Config:
    return dataclasses.replace(config, network=dataclasses.replace(config.network, **fields))


@pytest.mark.parametrize(
    ("towers", "shape"),
    [(4, (2, 4)), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((2, (4, 2)), (4, (1, 2))))],
)
def test_narrow_parity(narrow: Config, towers: int, shape: tuple[int, int]) -> None:
    """float64 at the paper's rate: a mesh against 1x1, with a class count that does not divide."""
    config = with_network(narrow, towers=towers, classes=11, precision="float64")
    with jax.enable_x64(True):
        assert relative_error(train_double(config, shape), train_double(config, (1, 1))) < 1e-10


def test_the_step_follows_the_gradient_of_the_mean_loss(narrow: Config) -> None:
    """float64: along a random direction the loss changes as the gradient says, dropout and all."""
    config = dataclasses.replace(narrow, optimizer=dataclasses.replace(narrow.optimizer, weight_decay=0.0))
    config = with_network(config, precision="float64")
    config = dataclasses.replace(config, network=redrawn(config.network, {"conv1": 0.02}, 0.1))
    with jax.enable_x64(True):
        mesh = make_mesh(2, 2)
        step, looks, batch = make_train_step(config, mesh), random_pixels(config), random_batch(config, mesh)
        start, rng = as_double(first_state(config)), np.random.default_rng(0)
        direction = jax.tree.map(lambda w: rng.normal(0, 1e-3, w.shape), start.params)

        def run(distance: float) -> tuple[State, float]:
            params = jax.tree.map(lambda w, d: w + distance * d, start.params, direction)
            moved = dataclasses.replace(start, params=params)
            state, totals, _ = step(
                jax.device_put(moved, state_shardings(config, mesh)),
                Totals.zero(),
                looks,
                batch,
                Pace.steady(1),
            )
            return state, float(totals.loss) / 8

        slopes = jax.tree.map(lambda v, d: np.sum(-v * d), velocity(run(0)[0]), direction)
        wanted = (run(1e-5)[1] - run(-1e-5)[1]) / 2e-5
        assert sum(jax.tree.leaves(slopes)) == pytest.approx(wanted, rel=1e-6)


def test_training_drops_half_of_the_hidden_units(narrow: Config) -> None:
    """Weights behind a unit of fc6 or fc7 get no gradient where the unit is dropped, and only there."""
    config = dataclasses.replace(narrow, train=dataclasses.replace(narrow.train, batch_size=1))
    start = first_state(narrow)
    dropped = {"fc7": [], "fc8": []}
    for i in range(8):
        run = trainer(config, (1, 1)).run([1.0], dataclasses.replace(start, step=np.int32(i)), first=i)
        trained = velocity(run["states"][1])
        for name, found in dropped.items():
            decay = 0.0005 * start.params[name]["kernel"]
            found.append(np.all(np.isclose(trained[name]["kernel"], -decay, rtol=1e-5, atol=0), axis=2))
    for found in dropped.values():
        towers = np.stack(found, axis=1)  # [2, 8, units]
        np.testing.assert_array_equal(*towers)  # a dropped unit is dropped for both towers that read it
        assert abs(towers.mean() - 0.5) < 0.12
        assert len(set(map(tuple, towers[0]))) == 8  # others each time


@pytest.mark.slow
def test_a_batch_is_learnt_by_heart(narrow: Config) -> None:
    """The loss of eight pictures falls from ln 10 towards 0."""
    config, mesh = with_network(narrow, dropout=0.0), make_mesh(1, 2)
    state = jax.device_put(sharpened(first_state(config), 2), state_shardings(config, mesh))
    step, looks, totals = make_train_step(config, mesh), random_pixels(config), no_totals(mesh)
    batch, losses = random_batch(config, mesh, draw=blotched_rows), []
    for _ in range(300):
        state, totals, _ = step(state, totals, looks, batch, Pace.steady(0.005))
        losses.append(float(totals.loss) / 8)
    losses = np.diff(losses, prepend=0)
    assert losses[0] > 2
    assert np.median(losses[-20:]) < 0.5
    assert step._cache_size() == 1  # the first totals look like those that steps return


def sharpened(state: State, factor: float) -> State:
    """Weights so much larger that scores differ between pictures and views."""
    return dataclasses.replace(state, params=jax.tree.map(lambda w: factor * w, state.params))


def test_padded_classes_never_count(narrow: Config) -> None:
    """Eleven classes on two towers: the twelfth output is cut off, and nothing is learnt by it."""
    config = with_network(narrow, classes=11)
    run = trainer(config, (1, 2)).run([0.01] * 2, first_state(config))
    first, last = (run["states"][i].params["fc8"] for i in (0, -1))
    assert last["bias"].shape == (2, 6)
    moved = np.sign(np.abs(last["bias"] - first["bias"]))
    np.testing.assert_array_equal(moved, [[1] * 6, [1] * 5 + [0]])
    decay = last["kernel"][1, :, 5] / first["kernel"][1, :, 5]
    np.testing.assert_allclose(decay, 1 - 0.01 * 0.0005 * (1 + 1.9), rtol=1e-6)


@pytest.mark.slow
def test_an_added_crossing_is_caught(narrow: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control of the communication tests: a sixth gather shows in the count."""

    class Leaky(AlexNet):
        def lrn(self, x: Towers) -> Towers:
            return [tower[..., : x[0].shape[-1]] for tower in self.cross(super().lrn(x))]

    def gathers(text: str) -> int:
        return sum(c.kind == "all-gather" for c in collectives(text))

    assert gathers(trainer(narrow, (1, 2)).text) == 5
    monkeypatch.setattr(variants, "AlexNet", Leaky)
    assert gathers(Trainer(narrow, make_mesh(1, 2)).text) == 7


@pytest.mark.slow
def test_randomness_follows_seed_and_step(narrow: Config) -> None:
    """The same batch gives another loss at another step and with another seed, and the same again."""
    trainers = [trainer(dataclasses.replace(narrow, seed=seed), (1, 2)) for seed in (0, 1)]

    def loss(seed: int, at: int) -> float:
        start = dataclasses.replace(first_state(narrow), step=np.int32(at))
        return trainers[seed].run([0.0], start)["losses"][0]

    losses = [loss(0, 0), loss(0, 1), loss(1, 0)]
    assert len(set(losses)) == 3
    assert loss(0, 0) == losses[0]


@pytest.mark.slow
def test_what_the_host_says_and_the_config_shares(narrow: Config) -> None:
    """Eight times one picture: one crop and flip for all; noise that ends; a layer that is frozen."""
    augment = dataclasses.replace(narrow.augment, shared_by=8, colour_divides=True)
    config = dataclasses.replace(with_network(narrow, dropout=0.0), augment=augment)
    mesh, start = make_mesh(1, 1), sharpened(first_state(config), SHARP)
    still = dataclasses.replace(Pace.steady(0.01), colour=np.float32(0))
    still.rates["conv1"] = dict.fromkeys(("kernel", "bias"), np.float32(0))
    pictures, labels = (part[:1].repeat(8, axis=0) for part in random_rows(config, 1))
    rows = {"all": Batch(pictures, labels), "first": Batch(pictures, np.where(np.arange(8), -1, labels))}

    def run(config: Config, pace: Pace, batch: str) -> tuple[State, float]:
        step, looks = make_train_step(config, mesh), random_pixels(config)
        state, totals, _ = step(jax.device_put(start), Totals.zero(), looks, rows[batch], pace)
        return jax.device_get(state), float(totals.loss)

    state, loss = run(config, still, "all")
    assert loss == pytest.approx(8 * run(config, still, "first")[1], rel=1e-5)
    noisy = run(config, Pace.steady(0.01), "all")[1]
    quiet = dataclasses.replace(augment, colour_noise=0.0, colour_divides=False)
    silent = run(dataclasses.replace(config, augment=quiet), Pace.steady(0.01), "all")
    assert loss == pytest.approx(silent[1], rel=1e-6) != pytest.approx(noisy, rel=1e-6)
    apart = dataclasses.replace(config, augment=dataclasses.replace(augment, shared_by=1))
    assert loss != pytest.approx(run(apart, still, "all")[1], rel=1e-5)
    for name, moved in (("conv1", False), ("conv2", True)):
        assert np.any(state.params[name]["kernel"] != start.params[name]["kernel"]) == moved


def test_first_weights(narrow: Config) -> None:
    """Section 5: normal with each layer's deviation, a constant bias; towers differ; nothing moves yet."""
    state = first_state(narrow)
    assert list(state.params) == list(narrow.network.layers())
    for name, layer in narrow.network.layers().items():
        kernel, deviation = state.params[name]["kernel"], layer.deviation
        spread = 4 / np.sqrt(2 * kernel.size)
        assert kernel.std() == pytest.approx(deviation, rel=spread), name
        assert abs(kernel.mean()) < 4 * deviation / np.sqrt(kernel.size)
        assert not np.any(kernel[0] == kernel[1])
        assert np.all(state.params[name]["bias"] == layer.bias)
    assert not any(np.any(v) for v in jax.tree.leaves(velocity(state)))


def test_first_weights_depend_on_the_seed(narrow: Config) -> None:
    one, two = (first_state(dataclasses.replace(narrow, seed=seed)) for seed in (0, 1))
    kernels = (state.params["conv1"]["kernel"] for state in (one, two))
    assert relative_error(*map(np.asarray, kernels)) > 1


@pytest.mark.parametrize("views", [1, 10])
def test_evaluation_counts_every_picture_once(narrow: Config, views: int) -> None:
    """Padded batches on a 2x2 mesh against one unpadded batch on 1x1."""
    pictures, labels = random_rows(narrow, 10)
    whole = evaluate(narrow, (1, 1), views, [(pictures, labels)])
    pieces = [(pictures[:4], labels[:4]), (pictures[4:8], labels[4:8])]
    last = (np.concatenate([pictures[8:], pictures[:2]]), np.append(labels[8:], np.full(2, -1, np.int32)))
    found = evaluate(narrow, (2, 2), views, [*pieces, last])
    assert found["images"] == whole["images"] == 10
    np.testing.assert_allclose(list(found.values()), list(whole.values()), rtol=1e-5)


SHARP = 6


@functools.cache
def evaluation_step(config: Config, shape: tuple[int, int], views: int) -> EvaluationStep:
    return make_evaluation_step(config, make_mesh(*shape), views)


def test_ten_views_average_probabilities(narrow: Config) -> None:
    """One picture, ten views: the loss of the mean of the probabilities that each view would have."""
    pictures, labels = random_rows(narrow, 1)
    found = evaluate(narrow, (1, 1), 10, [(pictures, labels)], factor=SHARP)["loss"]
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
            loss = evaluate(narrow, (1, 1), 1, [(shifted, labels)], mean, factor=SHARP)["loss"]
            chances.append(np.exp(-loss))
    wanted = -np.log(np.mean(chances))
    assert np.mean(-np.log(chances)) > wanted + 0.01  # not the mean of the losses
    assert found == pytest.approx(wanted, rel=1e-4)


def evaluate(
    config: Config,
    shape: tuple[int, int],
    views: int,
    batches: list,
    mean: np.ndarray | None = None,
    factor: float = 1,
) -> dict[str, float]:
    looks = random_pixels(config)
    step = evaluation_step(config, shape, views)
    if mean is not None:
        looks = dataclasses.replace(looks, mean=mean)
    state, totals = sharpened(first_state(config), factor), Totals.zero()
    for batch in batches:
        totals = step(state, totals, looks, Batch(*batch))
    return totals.means() | {"images": float(totals.images)}
