"""Reads the communication out of a compiled program's text."""

import math
import re
from dataclasses import dataclass

import numpy as np

_OPERATION = re.compile(
    r"= (?P<result>\(?[a-z0-9]+\[.*?) "
    r"(?P<kind>all-gather|all-reduce|reduce-scatter|all-to-all|collective-[a-z]+)(?:-start)?\((?P<rest>.*)"
)
_LISTED = re.compile(r"replica_groups=\{(\{.*?\})\}")
_COUNTED = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_NAMED = re.compile(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}")
_SHAPE = re.compile(r"[a-z]+\d+\[([\d,]*)\]")


Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Collective:
    """One operation: its kind, the devices that talk to each other, the numbers in each result."""

    kind: str
    groups: Groups
    sizes: tuple[int, ...]


def collectives(text: str) -> list[Collective]:
    """Every collective of a compiled module."""
    found = []
    for line in text.splitlines():
        match = _OPERATION.search(line)
        if match:
            shapes = _SHAPE.findall(match["result"])
            sizes = tuple(math.prod(int(n) for n in shape.split(",") if n) for shape in shapes)
            found.append(Collective(match["kind"], _groups(match["rest"]), sizes))
    return found


def _groups(text: str) -> Groups:
    """The devices that talk to each other, in any of the three forms in which XLA prints them."""
    if listed := _LISTED.search(text):
        return tuple(_numbers(group) for group in listed[1].strip("{}").split("},{"))
    if counted := _COUNTED.search(text):
        groups, each, dims, order = counted.groups()
        devices = np.arange(int(groups) * int(each)).reshape(_numbers(dims))
        if order:
            devices = devices.transpose(_numbers(order))
        return tuple(map(tuple, devices.reshape(int(groups), int(each)).tolist()))
    if named := _NAMED.search(text):
        axes = dict(axis.split("=") for axis in named[1].replace("'", "").split(","))
        within = [list(axes).index(name) for name in named[2].replace("'", "").split(",")]
        devices = np.arange(math.prod(map(int, axes.values()))).reshape([int(n) for n in axes.values()])
        last = np.moveaxis(devices, within, range(-len(within), 0))
        each = math.prod(last.shape[-len(within) :])
        return tuple(map(tuple, last.reshape(-1, each).tolist()))
    raise ValueError(f"replica groups of an unknown form: {text}")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(","))
