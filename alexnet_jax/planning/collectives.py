"""The collectives of a step: as the program asks for them, layer by layer, and as compiled.

The lowered program has every collective with the scope that it stands in, so that its layer is known. The
compiler merges them, and drops the names: of its own only axes and bytes are counted.
"""

import collections
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.config.fields import LAYERS
from alexnet_jax.network.shapes import SCORES
from alexnet_jax.sharding.mesh import DATA, TOWER

OTHER = "loss and counts"  # what is summed outside all layers
UNKNOWN = "?"

_OPERATION = re.compile(
    r"= (?P<result>\(?\(?[a-z0-9]+\[.*?) "
    r"(?P<kind>all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?P<start>-start)?"
    r"\((?P<rest>.*)"
)
_LISTED = re.compile(r"(?:replica_groups|source_target_pairs)=\{(\{.*?\})\}")
_COUNTED = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_NAMED = re.compile(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}")
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_SCOPE = re.compile(rf"\b({'|'.join((*LAYERS, SCORES))})/")


@dataclass(frozen=True)
class Collective:
    """A collective operation, and the bytes that each device sends to every other one of its group."""

    kind: str
    axis: str
    group: int  # devices that talk to each other
    bytes: int
    layer: str


def requested(lowered: jax.stages.Lowered, mesh: Mesh) -> list[Collective]:
    """Every collective that the program asks for, with its layer."""
    # In StableHLO, whose operations could be walked instead, versions of JAX name the groups differently.
    return read(lowered.as_text(dialect="hlo", debug_info=True), mesh)


def totals(collectives: Iterable[Collective]) -> dict[tuple[str, str], int]:
    """Bytes by (axis, layer)."""
    found: collections.Counter[tuple[str, str]] = collections.Counter()
    for one in collectives:
        found[one.axis, one.layer] += one.bytes
    return dict(found)


def read(text: str, mesh: Mesh) -> list[Collective]:
    """Every collective of a program in HLO, with the layer that its name says, if it says one."""
    found, scattered = [], False
    for line in text.splitlines():
        if line.endswith("{"):
            # On a TPU some of the scattered are summed whole, padded to tiles, and cut.
            scattered = line.startswith("%all-reduce-scatter")
        match = _OPERATION.search(line)
        if match is None:
            continue
        axis, group = _axis(_groups(match["rest"], mesh), mesh)
        if group > 1:
            kind = "reduce-scatter" if scattered else match["kind"]
            count = sum(_parts(match["kind"], bool(match["start"]), _shapes(match["result"]), group))
            scope = _SCOPE.search(_name(match["rest"]))
            layer = scope[1] if scope else OTHER
            found.append(Collective(kind, axis, group, count // group if scattered else count, layer))
    return found


def _axis(groups: Iterable[Iterable[int]], mesh: Mesh) -> tuple[str, int]:
    """The mesh axis along which groups of devices lie, and how many devices are in one."""
    found = frozenset(frozenset(group) for group in groups)
    ids = np.arange(mesh.devices.size).reshape(mesh.devices.shape)
    lines = {DATA: ids.T, TOWER: ids, f"{DATA} and {TOWER}": ids.reshape(1, -1)}
    group = max(map(len, found))
    for axis, grid in lines.items():
        if found == frozenset(frozenset(line) for line in grid.tolist()):
            return axis, group
    return UNKNOWN, group


def _shapes(text: str) -> list[int]:
    """Bytes of each array of a result."""
    return [
        math.prod(int(n) for n in dims.split(",") if n) * _width(kind) for kind, dims in _SHAPE.findall(text)
    ]


def _width(kind: str) -> int:
    """Bytes of a number: of f32, bf16, u8 or pred."""
    bits = re.search(r"\d+", kind)
    return max(1, int(bits[0]) // 8) if bits else 1


def _parts(kind: str, start: bool, sizes: list[int], group: int) -> tuple[int, ...]:
    """A device's own part of each array: results are whole, and a start lists what it was given as well."""
    if kind == "all-gather":
        return tuple(sizes[: len(sizes) // 2]) if start else tuple(n // group for n in sizes)
    if start and kind == "reduce-scatter":
        return tuple(sizes[len(sizes) // 2 :])
    if start and kind == "collective-permute":
        return (sizes[1],)  # what is behind are flags
    return tuple(sizes)


def _name(text: str) -> str:
    match = re.search(r'op_name="([^"]*)"', text)
    return match[1] if match else ""


def _groups(text: str, mesh: Mesh) -> list[list[int]]:
    """The devices that talk to each other, in any of the forms in which XLA prints them."""
    if listed := _LISTED.search(text):
        return [_numbers(group) for group in listed[1].strip("{}").split("},{")]
    if counted := _COUNTED.search(text):
        groups, each, dims, order = counted.groups()
        ids = np.arange(int(groups) * int(each)).reshape(_numbers(dims))
        return ids.transpose(_numbers(order) if order else None).reshape(int(groups), int(each)).tolist()
    if named := _NAMED.search(text):
        axes = dict(axis.split("=") for axis in named[1].replace("'", "").split(","))
        within = [list(axes).index(name) for name in named[2].replace("'", "").split(",")]
        ids = np.arange(mesh.devices.size).reshape([int(n) for n in axes.values()])
        last = np.moveaxis(ids, within, range(-len(within), 0))
        return last.reshape(-1, math.prod(last.shape[-len(within) :])).tolist()
    return [list(range(mesh.devices.size))]  # empty groups: everyone


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",")]
