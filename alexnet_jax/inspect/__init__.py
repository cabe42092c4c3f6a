"""Inspection of a run in notebooks: parameters, shardings, communication of its step, activations.

    from alexnet_jax import inspect

`python -m alexnet_jax.inspect` prints the same.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import jax
from absl import logging
from jax.sharding import Mesh

from alexnet_jax import arguments
from alexnet_jax.config.fields import Config
from alexnet_jax.errors import ConfigError, RefusedError
from alexnet_jax.inspect.layout import show_sharding
from alexnet_jax.inspect.parameters import table
from alexnet_jax.inspect.stages import responses, scores
from alexnet_jax.inspect.traffic import by_layer, communication, compiled_step, counted
from alexnet_jax.sharding.mesh import DATA, TOWER, check_towers, choose_shape, make_mesh
from alexnet_jax.sharding.platform import simulate_cpu_devices
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.trained.opened import TrainedRun, load_run

__all__ = ["by_layer", "communication", "compiled_step", "counted", "load", "responses", "scores"]
__all__ += ["show_sharding", "simulate_cpu_devices", "table", "tower"]

Shape = tuple[int, int]


def load(workdir: str | os.PathLike, step: int | None = None, mesh: Shape | Mesh | None = None) -> TrainedRun:
    """A run at a step or its newest checkpoint, on its own mesh, or on (data, tower), or on a jax Mesh."""
    folder = Workdir(os.fspath(workdir))
    config = folder.read_config()
    placed = _adopt(config, mesh) if isinstance(mesh, Mesh) else _make(config, mesh)
    with _quiet():
        return load_run(folder, step, placed)


def tower(tree: Any, number: int) -> Any:
    """One tower of a run's parameters as an ordinary tree, without the axis of towers, on one device."""
    return jax.tree.map(lambda x: _slice(x, number), tree)


def _make(config: Config, shape: Shape | None) -> Mesh:
    """A mesh of a shape, or of the run's own, of the devices that this process has, or may simulate."""
    if shape is not None:
        if min(shape) < 1:
            raise ConfigError(f"a mesh of {shape[0]} x {shape[1]} has no devices; try 1 x 1 (data x tower)")
        config = _on(config, *shape)
    check_towers(config.mesh, config.network.towers)
    simulated = config.mesh.cpu_devices
    if jax.config.jax_num_cpu_devices < simulated:
        with contextlib.suppress(RuntimeError):  # those that are in use already stay
            simulate_cpu_devices(simulated)
    there = len(jax.devices())
    data, tower = choose_shape(config.mesh, config.network.towers, simulated or there)
    if (needed := data * tower) > there:
        raise ConfigError(
            f"a mesh of {data} x {tower} (data x tower) needs {needed} devices, there are {there} "
            f"({jax.devices()[0].platform}); simulate them: inspect.simulate_cpu_devices({needed}) in the "
            f"first cell of a notebook that is started anew, or JAX_NUM_CPU_DEVICES={needed} before a command"
        )
    return make_mesh(data, tower)


def _adopt(config: Config, mesh: Mesh) -> Mesh:
    """A mesh that was made elsewhere, if it has our axes; what is cut how, the compiler may choose."""
    if mesh.axis_names != (DATA, TOWER):
        named = ", ".join(map(str, mesh.axis_names))
        raise ConfigError(f"the axes of this mesh are {named}; a run needs {DATA}, {TOWER}, in this order")
    data, tower = mesh.devices.shape
    check_towers(_on(config, data, tower).mesh, config.network.towers)
    return make_mesh(data, tower, mesh.devices.flat)


def _on(config: Config, data: int, tower: int) -> Config:
    return arguments.with_flags(config, mesh=f"{data}x{tower}")


def _slice(x: jax.Array, number: int) -> jax.Array:
    """A tower of an array, from a device of this process that holds it whole."""
    if not 0 <= number < x.shape[0]:
        raise ConfigError(f"there is no tower {number}, of {x.shape[0]}, counted from 0")
    for piece in x.addressable_shards:
        held = range(*piece.index[0].indices(x.shape[0]))
        if number in held and piece.data.shape[1:] == x.shape[1:]:
            return piece.data[number - held.start]
    raise RefusedError(f"tower {number} lies on no device of process {jax.process_index()} as a whole")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Libraries say what people need not know, which a notebook shows in red."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)
