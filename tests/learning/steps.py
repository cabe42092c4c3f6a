"""Batches of random pictures, and training steps over them on any mesh."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.config.fields import AugmentConfig, Config
from alexnet_jax.learning.augment import Pixels, pixels
from alexnet_jax.learning.metrics import Totals
from alexnet_jax.learning.schedule import Pace
from alexnet_jax.learning.state import Batch, State, abstract_state, init_state, state_shardings
from alexnet_jax.learning.step import make_train_step
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.sharding.rows import batch_rows, place_rows

Rows = tuple[np.ndarray, np.ndarray]


def random_rows(config: Config, images: int, seed: int = 0) -> Rows:
    """Pictures of noise, and labels."""
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (images, config.data.size, config.data.size, 3), dtype=np.uint8)
    return pictures, rng.integers(0, config.network.classes, images).astype(np.int32)


def blotched_rows(config: Config, images: int, seed: int = 0) -> Rows:
    """Pictures of blotches of every size, as photographs have: noise leaves the last pool near-ties."""
    noise, labels = random_rows(config, images, seed)
    rng, size = np.random.default_rng(seed), config.data.size
    pictures = (noise - 127.5) * (55 / 127.5) + 127.5
    for cells in 2 ** np.arange(1, int(np.log2(size))):
        blotch = -(-size // cells)
        shades = rng.uniform(-55, 55, (images, cells, cells, 3))
        pictures += shades.repeat(blotch, 1).repeat(blotch, 2)[:, :size, :size]
    return pictures.clip(0, 255).astype(np.uint8), labels


def random_batch(config: Config, mesh: Mesh, seed: int = 0, draw: Callable[..., Rows] = random_rows) -> Batch:
    size = config.train.batch_size
    rows = batch_rows(mesh, size)
    return Batch(*(place_rows(mesh, rows, part[rows], size) for part in draw(config, size, seed)))


def random_looks(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """A bumpy mean and correlated colours, so that neither drops out of a comparison."""
    rng = np.random.default_rng(1)
    mean = rng.uniform(100, 140, (config.data.size, config.data.size, 3))
    factor = rng.normal(0, 40, (3, 3))
    return mean, factor @ factor.T


def pixels_of(mean: np.ndarray, covariance: np.ndarray, config: AugmentConfig) -> Pixels:
    values, vectors = np.linalg.eigh(covariance)
    return pixels(mean, np.maximum(values, 0), vectors, config)


def random_pixels(config: Config) -> Pixels:
    return pixels_of(*random_looks(config), config.augment)


@functools.cache
def first_state(config: Config) -> State:
    """`init_state` on the host, compiled once for all meshes."""
    return jax.device_get(init_state(config, make_mesh(1, 1)))


class Trainer:
    """The compiled step on a mesh, fed with random batches."""

    def __init__(self, config: Config, mesh: Mesh):
        self.config, self.mesh, self.looks = config, mesh, random_pixels(config)
        state, batch = abstract_state(config, mesh), random_batch(config, mesh)
        step = make_train_step(config, mesh)
        self.compiled = step.lower(state, Totals.zero(), self.looks, batch, Pace.steady(0)).compile()
        self.text = self.compiled.as_text()

    def run(
        self, rates: list[float], start: State, first: int = 0, draw: Callable[..., Rows] = random_rows
    ) -> dict[str, Any]:
        """Losses and, on the host, the states before, between and after steps on batches from `first` on."""
        state = jax.device_put(start, state_shardings(self.config, self.mesh))
        losses, states = [], [jax.device_get(start)]
        for i, rate in enumerate(rates, first):
            batch = random_batch(self.config, self.mesh, i, draw)
            state, totals, _ = self.compiled(state, Totals.zero(), self.looks, batch, Pace.steady(rate))
            losses.append(totals.means()["loss"])
            states.append(jax.device_get(state))
        return {"losses": losses, "states": states}


def velocity(state: State) -> dict:
    return state.velocity[-1].trace


def relative_error(found: Any, wanted: Any) -> float:
    """The largest relative error of any array, by norm."""
    tiny = np.finfo(np.float32).tiny  # arrays of zeros must be equal
    errors = jax.tree.map(lambda f, w: np.linalg.norm(f - w) / max(np.linalg.norm(w), tiny), found, wanted)
    return float(max(jax.tree.leaves(errors)))


@functools.cache
def train_double(config: Config, shape: tuple[int, int]) -> tuple[dict, dict]:
    """Parameters and averages after three steps in float64."""
    mesh, looks = make_mesh(*shape), random_pixels(config)
    step = make_train_step(config, mesh)
    state = jax.device_put(as_double(first_state(config)), state_shardings(config, mesh))
    for i in range(3):
        state, *_ = step(state, Totals.zero(), looks, random_batch(config, mesh, i), Pace.steady(0.01))
    return jax.device_get((state.params, state.averages))


def as_double(state: State) -> State:
    return jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, state)
