"""Builds a checked `Config` from nested dictionaries, such as a config file or a `config.json`."""

import dataclasses
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from alexnet_jax.config.fields import Config
from alexnet_jax.config.rules import Mark, Rule
from alexnet_jax.errors import ConfigError
from alexnet_jax.text import nearest

MOST = {float: 1e18, int: 2**32}  # two of them multiplied still are a float32, or an int64


@dataclass(frozen=True)
class Field:
    """A field or a section, by its path, with the marks that stand beside it and beside what it is in."""

    path: str
    kind: Any
    marks: tuple[Rule | Mark, ...]


def build(values: Mapping[str, Any]) -> Config:
    """A config, or the first thing that is wrong with it."""
    config = _fill(Config, values, "")
    for complaint in _complaints(config):
        raise ConfigError(complaint)
    return config


def all_fields(kind: type = Config, path: str = "", marks: tuple[Mark, ...] = ()) -> Iterator[Field]:
    """Every field that holds a value; what a section is marked with holds for all in it."""
    for field in _fields(kind, path):
        own = (*marks, *field.marks)
        if dataclasses.is_dataclass(field.kind):
            yield from all_fields(field.kind, field.path, own)
        else:
            yield dataclasses.replace(field, marks=own)


def _fields(kind: type, path: str) -> Iterator[Field]:
    """The fields and sections of one dataclass."""
    prefix = f"{path}." if path else ""
    for name, wanted in typing.get_type_hints(kind, include_extras=True).items():
        wanted, *marks = typing.get_args(wanted) if typing.get_origin(wanted) is Annotated else (wanted,)
        yield Field(prefix + name, wanted, tuple(marks))


def _fill(kind: type, values: Any, path: str) -> Any:
    """An instance of the dataclass `kind`; unknown, missing and mistyped fields are named by their path."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"config.{path}={values!r} must be a group of fields")
    fields = {field.path.rpartition(".")[2]: field for field in _fields(kind, path)}
    for name in values:
        if name not in fields:
            _refuse_unknown(str(name), path, fields)
    filled = {}
    for name, field in fields.items():
        if name not in values:
            raise ConfigError(f"config.{field.path} is missing")
        fill = _fill if dataclasses.is_dataclass(field.kind) else _convert
        value = filled[name] = fill(field.kind, values[name], field.path)
        for rule in field.marks:
            if isinstance(rule, Rule) and not rule.holds(value):
                raise ConfigError(f"{field.path}={value} {rule.words}")
    return kind(**filled)


def _refuse_unknown(name: str, path: str, fields: Mapping[str, Field]) -> None:
    elsewhere = [field.path for field in all_fields() if field.path.rpartition(".")[2] == name]
    near = elsewhere[0] if elsewhere else fields[nearest(name, fields)].path
    prefix = f"{path}." if path else ""
    raise ConfigError(f"unknown field config.{prefix}{name}; the nearest name is config.{near}")


def _convert(wanted: Any, value: Any, path: str) -> Any:
    """`value` as the annotated type `wanted`."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is Literal:
        if value in arguments:
            return value
        raise ConfigError(f"config.{path}={value!r} must be one of {', '.join(map(repr, arguments))}")
    if origin is tuple:
        items = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else None
        if items is not None and arguments[-1] is Ellipsis:
            return tuple(_convert(arguments[0], item, path) for item in items)
        if items is not None and len(items) == len(arguments):
            return tuple(_convert(kind, item, path) for kind, item in zip(arguments, items, strict=True))
    elif wanted is float and type(value) in (int, float) and abs(value) <= MOST[float]:  # not inf, not nan
        return float(value)
    elif type(value) is wanted and wanted is not float and (wanted is not int or abs(value) <= MOST[int]):
        return value
    name = wanted if isinstance(wanted, types.GenericAlias) else wanted.__name__
    limit = f" and at most {MOST[wanted]:g}" if wanted in MOST and type(value) in MOST else ""
    raise ConfigError(f"config.{path}={value!r:.99} must be of type {name}{limit}")


def _complaints(section: Any) -> Iterator[str]:
    """Complaints about fields that do not go together, section by section and then of the whole."""
    for value in vars(section).values():
        if dataclasses.is_dataclass(value):
            yield from _complaints(value)
    if hasattr(section, "complaints"):
        yield from section.complaints()
