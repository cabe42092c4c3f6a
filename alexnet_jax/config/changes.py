"""Whether a run may go on with another config, by the marks beside the fields."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from alexnet_jax.config.building import all_fields
from alexnet_jax.config.rules import Mark

MARKS = {field.path: field.marks for field in all_fields()}


@dataclass(frozen=True)
class Change:
    """A field that has another value."""

    name: str
    before: Any
    now: Any

    def has(self, mark: Mark) -> bool:
        return mark in MARKS.get(self.name, ())

    def within(self, names: tuple[str, ...]) -> bool:
        """Whether the field, or a section that it is in, is among names."""
        return any(self.name == name or self.name.startswith(f"{name}.") for name in names)


def changes(before: Any, now: Any) -> list[Change]:
    """The fields of two configs, or of their nested dictionaries, that differ."""
    after = dict(leaves(now))
    return [
        Change(name, value, after.get(name)) for name, value in leaves(before) if after.get(name) != value
    ]


def leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of nested groups, by their paths."""
    values = dataclasses.asdict(values) if dataclasses.is_dataclass(values) else values
    for name, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
