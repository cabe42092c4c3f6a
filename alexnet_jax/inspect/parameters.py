"""A run's parameters as a table: where they lie, and what their numbers are like, tower by tower.

The devices reduce their own parts, a few arrays in a program; of each array and tower two floats come back.
On simulated devices even a program's temporaries and its compilation are this machine's memory: some 10 MB
for the paper's net, but 18 with XLA's usual effort, and 30 with all arrays in one program.
"""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.sharding import NamedSharding

from alexnet_jax.errors import ConfigError
from alexnet_jax.inspect.layout import device_bytes, device_words, parts, spec_words
from alexnet_jax.sharding.mesh import REPLICATED, TOWER, shard
from alexnet_jax.sharding.platform import cpu_options, platform_of
from alexnet_jax.text import columns

HEADINGS = ("parameter", "shape", "spec", "bytes", "tower", "devices", "mean", "deviation", "norm")
TOGETHER = 4  # arrays that a program reduces


@dataclass(frozen=True)
class TowerRow:
    """A tower of an array."""

    name: str
    shape: tuple[int, ...]  # of all towers
    spec: str
    bytes: int  # on each device
    tower: int
    devices: str  # that hold it, or a part of it
    mean: float
    deviation: float
    norm: float


def table(tree: Any) -> str:
    """Every array of a tree that has an axis of towers in front, as lines."""
    return "\n".join(_lines(rows(tree)))


def rows(tree: Any) -> list[TowerRow]:
    """Every tower of every array of such a tree."""
    named = {
        jax.tree_util.keystr(path, simple=True, separator="/"): x
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }
    for name, x in named.items():
        place = getattr(x, "sharding", None)
        if not (isinstance(place, NamedSharding) and TOWER in place.mesh.axis_names and x.ndim):
            raise ConfigError(f"{name} has no axis of towers on a mesh; a run's state.params have one")
    arrays = list(named.values())
    groups = [arrays[first : first + TOGETHER] for first in range(0, len(arrays), TOGETHER)]
    found = jax.device_get([moments for group in groups for moments in _moments(group)])
    return [
        row
        for (name, x), moments in zip(named.items(), found, strict=True)
        for row in _towers(name, x, moments)
    ]


def _moments(arrays: list[jax.Array]) -> list[jax.Array]:
    """Mean and variance of each tower, f32[towers, 2], on every device."""
    mesh = arrays[0].sharding.mesh
    return _reducer(platform_of(mesh), shard(mesh, REPLICATED))(arrays)


@functools.cache
def _reducer(platform: str, place: NamedSharding) -> Callable[[list[jax.Array]], list[jax.Array]]:
    options = cpu_options(platform, xla_backend_optimization_level=0)
    options |= cpu_options(platform, xla_cpu_use_fusion_emitters=False)

    def reduce(x: jax.Array) -> jax.Array:
        axes = tuple(range(1, x.ndim))
        return jnp.stack([jnp.mean(x, axes), jnp.var(x, axes)], axis=1)

    return jax.jit(lambda arrays: list(map(reduce, arrays)), out_shardings=place, compiler_options=options)


def _towers(name: str, x: jax.Array, moments: np.ndarray) -> Iterator[TowerRow]:
    numbers = math.prod(x.shape[1:])
    for t, (mean, variance) in enumerate(moments.astype(np.float64).tolist()):
        devices = [d for (span, *_), held in parts(x).items() if t in range(*span) for d in held]
        where = (spec_words(x), device_bytes(x), t, device_words(devices))
        norm = math.sqrt(numbers * (variance + mean**2))
        yield TowerRow(name, x.shape, *where, mean, math.sqrt(variance), norm)


def _lines(found: list[TowerRow]) -> Iterator[str]:
    cells = [HEADINGS]
    for row in found:
        array = (row.name, str(row.shape), row.spec, f"{row.bytes:,}")
        figures = (f"{figure:.4g}" for figure in (row.mean, row.deviation, row.norm))
        cells.append((*(array if row.tower == 0 else [""] * 4), str(row.tower), row.devices, *figures))
    yield from columns(cells, right=(3, 4, 6, 7, 8))
    numbers = sum(math.prod(row.shape) for row in found if row.tower == 0)
    each = sum(row.bytes for row in found if row.tower == 0)
    yield f"  {numbers:,} numbers; {each:,} bytes on each device"
