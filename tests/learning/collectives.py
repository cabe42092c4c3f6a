"""Reads the communication out of a compiled program's text."""

import math
import re
from dataclasses import dataclass

_OPERATION = re.compile(
    r"= (?P<result>\(?[a-z0-9]+\[.*?) "
    r"(?P<kind>all-gather|all-reduce|reduce-scatter|all-to-all|collective-[a-z]+)(?:-start)?\((?P<rest>.*)"
)
_LISTED = re.compile(r"replica_groups=(\{\{.*?\}\}|\[[^ ]*)")
_SHAPE = re.compile(r"[a-z]+\d+\[([\d,]*)\]")


@dataclass(frozen=True)
class Collective:
    """One operation: its kind, the devices that talk to each other, the numbers in each result."""

    kind: str
    groups: str
    sizes: tuple[int, ...]


def collectives(text: str) -> list[Collective]:
    """Every collective of a compiled module."""
    found = []
    for line in text.splitlines():
        match = _OPERATION.search(line)
        if match:
            shapes = _SHAPE.findall(match["result"])
            sizes = tuple(math.prod(int(n) for n in shape.split(",") if n) for shape in shapes)
            groups = _LISTED.search(match["rest"])
            found.append(Collective(match["kind"], groups[1] if groups else "", sizes))
    return found
