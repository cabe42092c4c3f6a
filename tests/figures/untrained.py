"""Runs to look at that nobody has trained: what figures draw is there from the first step on."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from alexnet_jax.config.building import build
from alexnet_jax.config.fields import Config
from alexnet_jax.learning.state import abstract_state
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.trained.opened import TrainedRun


def untrained(config: Config, path: Path, data: int = 1, tower: int = 1) -> TrainedRun:
    """A run at its beginning, on a mesh, with weights that NumPy draws: nothing is compiled."""
    mesh, rng = make_mesh(data, tower), np.random.default_rng(0)

    def drawn(x: jax.ShapeDtypeStruct) -> jax.Array:
        return jax.device_put(np.asarray(rng.normal(size=x.shape), x.dtype), x.sharding)

    shapes = abstract_state(config, mesh)
    step = jax.device_put(np.zeros((), shapes.step.dtype), shapes.step.sharding)
    state = dataclasses.replace(jax.tree.map(drawn, shapes), step=step)
    return TrainedRun(Workdir(str(path)), config, mesh, state)


def stateless(config: Config, path: Path) -> TrainedRun:
    """A run of which only the config and the figures are looked at."""
    return TrainedRun(Workdir(str(path)), config, make_mesh(1, 1), None)


def recipe(module: Any, variant: str = "paper") -> Config:
    """A file of `configs/`."""
    return build(module.get_config(variant).to_dict())


def same_colour(one: Any, other: Any) -> bool:
    """Whether two ways to say a colour mean the same."""
    from matplotlib.colors import to_rgba

    return bool(jnp.allclose(jnp.array(to_rgba(one)), jnp.array(to_rgba(other))))
