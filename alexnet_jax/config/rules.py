"""Marks beside the fields of a config: what a value must be, and whether a run may go on with another."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True)
class Rule:
    """A condition on one value, and the words that follow `field=value` where it does not hold."""

    holds: Callable[[Any], bool]
    words: str


@dataclass(frozen=True)
class Mark:
    """A property of a field, or of all fields of a section."""

    name: str


FIXED = Mark("fixed")  # a run keeps it: network, data, and the order in which they are seen
FREE = Mark(
    "free"
)  # metrics do not depend on it; what is neither fixed nor free may change, and changes them
HOSTS_OWN = Mark("host's own")  # hosts of one run may differ

ABOVE_0 = Rule(lambda v: v > 0, "must be above 0")
NOT_NEGATIVE = Rule(lambda v: v >= 0, "must not be negative")
ODD = Rule(lambda v: v % 2 == 1, "must be odd, so that a window has a centre")
ASCENDING = Rule(lambda v: list(v) == sorted(v), "must ascend")
POWER_OF_TWO = Rule(lambda v: v & (v - 1) == 0, "must be 0 or a power of two")

Positive = Annotated[float, ABOVE_0]
PositiveInt = Annotated[int, ABOVE_0]
Amount = Annotated[float, NOT_NEGATIVE]
Count = Annotated[int, NOT_NEGATIVE]
Share = Annotated[float, Rule(lambda v: 0 <= v < 1, "must be in [0, 1)")]
