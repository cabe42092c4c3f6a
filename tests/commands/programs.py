"""Runs within this process, which trace and compile a program once, not in every one of them."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest
from jax import numpy as jnp
from jax.sharding import Mesh

from alexnet_jax.config.fields import Config
from alexnet_jax.data.batches import open_packed
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.training import evaluation, loop, opening

# What no program depends on.
FREE = ("mesh", "data", "checkpoint", "limits", "expected", "profile_steps", "wandb", "init_from")
COMPILED: dict[str, Any] = {}


def share_programs(patch: pytest.MonkeyPatch) -> None:
    """Until the end of `patch` runs take the programs of those before them."""
    for module, name in (
        (loop, "make_train_step"),
        (evaluation, "make_evaluation_step"),
        (opening, "init_state"),
    ):
        patch.setattr(module, name, _shared(name, getattr(module, name)))


def _shared(name: str, make: Callable) -> Callable:
    def made(config: Config, mesh: Mesh, *more: Any) -> Any:
        sections = {key: value for key, value in vars(config).items() if key not in FREE}
        sections["train"] = dataclasses.replace(config.train, steps=0, log_every=1)
        sections["evaluation"] = None  # the number of views is among `more`
        key = f"{name} {sections} {mesh} {more}"
        if key not in COMPILED:
            COMPILED[key] = make(config, mesh, *more)
        # The memory of a state is the step's that is given it.
        return jax.tree.map(jnp.copy, COMPILED[key]) if name == "init_state" else COMPILED[key]

    return made


def train_here(config: Config, path: Path, data: int = 1, tower: int = 2) -> None:
    """Trains to the end, from where the run is."""
    train_on(config, path, make_mesh(data, tower))


def train_on(config: Config, path: Path, mesh: Mesh) -> None:
    workdir = Workdir(str(path))
    workdir.check()
    loop.train(config, workdir, open_packed(config.data, config.network.classes), mesh)
