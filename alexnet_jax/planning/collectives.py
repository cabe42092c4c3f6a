"""Who talks to whom in a step: as the program asks for it, layer by layer, and as the compiler does it.

The lowered program has every collective with the scope that it stands in, so that its layer is known. The
compiler merges them (one all-reduce for the gradients of many layers) and drops the names of what it merges;
what it leaves is attributed by name where there is one, and else by size.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.config import LAYERS
from alexnet_jax.network.shapes import SCORES
from alexnet_jax.sharding.mesh import DATA, TOWER

OTHER = "loss and counts"  # what is summed outside all layers
UNKNOWN = "?"
OWN = "the compiler's own"  # nobody asked for one of this kind there
MOST_SUMS = 100_000  # of sizes, tried to explain one that was merged

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
    """One operation: on each device, what it gives to every other one of its group, in bytes."""

    kind: str
    axis: str
    group: int  # devices that talk to each other
    sizes: tuple[int, ...]  # bytes of each array
    layers: tuple[str, ...]

    @property
    def bytes(self) -> int:
        return sum(self.sizes)


def requested(lowered: jax.stages.Lowered, mesh: Mesh) -> list[Collective]:
    """Every collective that the program asks for, with its layer."""
    # In StableHLO, whose operations could be walked instead, versions of JAX name the groups differently.
    found = _read(lowered.as_text(dialect="hlo", debug_info=True), mesh)
    return [dataclasses.replace(one, layers=one.layers or (OTHER,)) for one in found]


def compiled(text: str, mesh: Mesh, wanted: list[Collective]) -> list[Collective]:
    """Every collective of a compiled program, with the layers that it serves."""
    return _attributed(_read(text, mesh), wanted)


def totals(collectives: Iterable[Collective]) -> dict[tuple[str, str], int]:
    """Bytes by (axis, layer) of collectives that serve one layer each."""
    found: dict[tuple[str, str], int] = collections.defaultdict(int)
    for one in collectives:
        (layer,) = one.layers
        found[one.axis, layer] += one.bytes
    return dict(found)


def _read(text: str, mesh: Mesh) -> list[Collective]:
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
            sizes = _parts(match["kind"], bool(match["start"]), _shapes(match["result"]), group)
            sizes = tuple(size // group for size in sizes) if scattered else sizes
            scope = _SCOPE.search(_name(match["rest"]))
            found.append(Collective(kind, axis, group, sizes, (scope[1],) if scope else ()))
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


def _attributed(found: list[Collective], wanted: list[Collective]) -> list[Collective]:
    """Says of each what it serves, by what was asked for and is not yet accounted for."""
    left, result = list(wanted), []
    exact = [_claim(one, left) for one in found]
    for one, claimed in zip(found, exact, strict=True):
        # Some are flattened into one array: such a one serves what is left, if that is as large.
        served = claimed or _subset(one, left)
        for part in served if not claimed else ():
            left.remove(part)
        layers = tuple(dict.fromkeys(part.layers[0] for part in served))
        result.append(dataclasses.replace(one, layers=layers or one.layers))
    return [one if one.layers else _by_exclusion(one, result, left) for one in result]


def _by_exclusion(one: Collective, found: list[Collective], left: list[Collective]) -> Collective:
    """The only one of its kind that serves nothing, and the only one that nothing serves."""
    idle = [other for other in found if not other.layers and _alike(other, one)]
    unserved = [part for part in left if _alike(part, one)]
    if not unserved:
        return dataclasses.replace(one, layers=(OWN,))
    return dataclasses.replace(
        one, layers=unserved[0].layers if len(idle) == len(unserved) == 1 else (UNKNOWN,)
    )


def _alike(one: Collective, other: Collective) -> bool:
    return (one.kind, one.axis) == (other.kind, other.axis)


def _claim(one: Collective, left: list[Collective]) -> list[Collective]:
    """Takes what it does array by array: by the name if it is a single one that has a name, else by size."""
    claimed, rest = [], list(left)
    for size in one.sizes:
        fitting = [w for w in rest if _alike(w, one) and w.bytes == size]
        if one.layers and len(one.sizes) == 1:
            fitting = [w for w in fitting if w.layers == one.layers]
        if not fitting:
            return []
        claimed.append(fitting[0])
        rest.remove(fitting[0])
    left[:] = rest
    return claimed


def _subset(one: Collective, left: list[Collective]) -> list[Collective]:
    """Those that are as large together, as many as possible: merging takes all that it may."""
    rest = [part for part in left if _alike(part, one)]
    if one.bytes == sum(part.bytes for part in rest):
        return rest
    sums: dict[int, tuple[Collective, ...]] = {0: ()}
    for part in rest:
        for size, parts in list(sums.items()):
            larger = size + part.bytes
            if larger <= one.bytes and len(parts) >= len(sums.get(larger, ())) and len(sums) < MOST_SUMS:
                sums[larger] = (*parts, part)
    return list(sums.get(one.bytes, ()))


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
