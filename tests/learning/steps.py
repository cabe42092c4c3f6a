"""Batches of random pictures, and training steps over them on any mesh."""

import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.config import Config
from alexnet_jax.learning.augment import Pixels, pixels
from alexnet_jax.learning.metrics import Totals
from alexnet_jax.learning.step import Batch, State, init_state, make_train_step, state_shardings
from alexnet_jax.mesh import batch_rows, make_mesh, place_rows


def random_rows(config: Config, images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of noise, and labels."""
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (images, config.data.size, config.data.size, 3), dtype=np.uint8)
    return pictures, rng.integers(0, config.network.classes, images).astype(np.int32)


def random_batch(config: Config, mesh: Mesh, seed: int = 0) -> Batch:
    size = config.train.batch_size
    rows = batch_rows(mesh, size)
    parts = (*random_rows(config, size, seed), np.ones(size, np.float32))
    return Batch(*(place_rows(mesh, rows, part[rows], size) for part in parts))


def random_pixels(config: Config) -> Pixels:
    """A bumpy mean and correlated colours, so that neither drops out of a comparison."""
    rng = np.random.default_rng(1)
    mean = rng.uniform(100, 140, (config.data.size, config.data.size, 3))
    factor = rng.normal(0, 40, (3, 3))
    return pixels(mean, factor @ factor.T, config.augment)


@functools.cache
def _first(config: Config) -> State:
    return jax.device_get(init_state(config, make_mesh(1, 1)))


def first_state(config: Config, mesh: Mesh) -> State:
    """`init_state`, compiled once for all meshes."""
    return jax.device_put(_first(config), state_shardings(config, mesh))


def train_steps(
    config: Config, mesh: Mesh, rates: list[float], state: State | None = None
) -> tuple[str, dict[str, Any]]:
    """The compiled step's text, and on the host: losses, and parameters and velocity after each step."""
    looks = random_pixels(config)
    if state is None:
        state = first_state(config, mesh)
    step = make_train_step(config, mesh)
    compiled = step.lower(state, Totals.zero(), looks, random_batch(config, mesh), np.float32(0)).compile()
    losses, params, velocity = [], [jax.device_get(state.params)], []
    for i, rate in enumerate(rates):
        batch = random_batch(config, mesh, seed=i)
        state, totals = compiled(state, Totals.zero(), looks, batch, np.float32(rate))
        losses.append(totals.means()["loss"])
        params.append(jax.device_get(state.params))
        velocity.append(jax.device_get(state.velocity[-1].trace))
    return compiled.as_text(), {"losses": losses, "params": params, "velocity": velocity}


def relative_error(found: Any, wanted: Any) -> float:
    """The largest relative error of any array, by norm."""
    tiny = np.finfo(np.float32).tiny  # arrays of zeros must be equal
    errors = jax.tree.map(lambda f, w: np.linalg.norm(f - w) / max(np.linalg.norm(w), tiny), found, wanted)
    return float(max(jax.tree.leaves(errors)))
