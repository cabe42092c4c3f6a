"""From nested dictionaries, such as a config file or a `config.json`, to a checked `Config`."""

import dataclasses
import difflib
import operator
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from alexnet_jax.config import NORMS, POOLS, Config, NetworkConfig, ScheduleConfig, TrainConfig
from alexnet_jax.errors import ConfigError

MOST = {float: 1e18, int: 2**32}  # two of them multiplied still are a float32, or an int64


def build(values: Mapping[str, Any]) -> Config:
    """A config, or the first thing that is wrong with it."""
    config = _fill(Config, values, "")
    for complaint in _complaints(config):
        raise ConfigError(complaint)
    return config


def _fill(kind: type, values: Any, path: str) -> Any:
    """An instance of the dataclass `kind`; unknown, missing and mistyped fields are named by their path."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"config.{path}={values!r} must be a group of fields")
    types_of = typing.get_type_hints(kind)
    for name in values:
        if name not in types_of:
            prefix = f"{path}." if path else ""
            beside = {prefix + field: field for field in types_of}
            elsewhere = {other: other.rpartition(".")[2] for other in _fields(Config)}
            near = _nearest(str(name), beside | elsewhere if str(name) in elsewhere.values() else beside)
            raise ConfigError(f"unknown field config.{prefix}{name}; the nearest name is config.{near}")
    filled = {}
    for name, wanted in types_of.items():
        below = f"{path}.{name}" if path else name
        if name not in values:
            raise ConfigError(f"config.{below} is missing")
        fill = _fill if dataclasses.is_dataclass(wanted) else _convert
        filled[name] = fill(wanted, values[name], below)
    return kind(**filled)


def _fields(kind: type, prefix: str = "") -> Iterable[str]:
    """The paths of all fields that hold a value."""
    for name, wanted in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(wanted):
            yield from _fields(wanted, f"{prefix}{name}.")
        else:
            yield prefix + name


def _nearest(name: str, names: Mapping[str, str]) -> str:
    """The path whose last part is most like a name."""
    return max(names, key=lambda path: difflib.SequenceMatcher(None, name, names[path]).ratio())


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


Rule = tuple[str, Callable[[Any], bool], str]

# What each field must be by itself: "section.name other names", a test, and the test in words.
_RULES: tuple[Rule, ...] = (
    ("init_from", lambda v: v != "?", "stands for a run to begin with: say --config.init_from=WORKDIR"),
    ("data.name", bool, "must not be empty"),
    ("network.towers", lambda v: v in (1, 2, 4), "must be 1, 2 or 4"),
    ("network.classes", lambda v: v >= 2, "must be at least 2"),
    (
        "network.lrn.size network.map_norm.size",
        lambda v: v >= 1 and v % 2,
        "must be odd, so that a window has a centre",
    ),
    (
        "network.dropout network.batch_norm.decay optimizer.momentum",
        lambda v: 0 <= v < 1,
        "must be in [0, 1)",
    ),
    (
        "evaluation.views",
        lambda v: v in (1, 9, 10),
        "must be 1 (centre), 9 (a 3 x 3 grid) or 10 (corners, centre, flips)",
    ),
    ("expected.top1_error", lambda v: 0 <= v <= 1, "must be a fraction, or 0 where it is not known"),
    ("expected.views", lambda v: v in (0, 1, 9, 10), "must be 1, 9 or 10, or 0 where it is not known"),
    ("profile_steps", lambda v: v <= 1000, "must be at most 1000: they are kept in memory"),
    (
        "wandb",
        lambda v: v.isprintable() and not set(v) & set("/\\#?%:"),
        "must be the name of a project, without /\\#?%:",
    ),
    ("schedule.drops schedule.biases.drops", lambda v: list(v) == sorted(v), "must ascend"),
    ("schedule.drops schedule.biases.drops", lambda v: not v or v[0] >= 0, "must not be negative"),
    ("train.blocks", lambda v: v < 1 or v & (v - 1) == 0, "must be 0 or a power of two"),
    ("seed", lambda v: v < 2**32, "must be below 2^32: more bits are not used"),
    (
        "schedule.factor schedule.biases.factor",
        lambda v: 1 <= v <= 1e6,
        "must be from 1, which changes nothing, to 1e6",
    ),
    ("schedule.levels schedule.biases.levels", lambda v: v >= 2, "must be at least 2"),
    (
        "network.image_size network.conv1.width network.lrn.k network.map_norm.k network.batch_norm.epsilon "
        "network.pool.window network.pool.stride data.size data.read_ahead schedule.learning_rate "
        "schedule.patience schedule.power schedule.biases.ratio "
        "augment.shared_by train.batch_size train.epochs train.log_every evaluation.batch_size "
        "evaluation.every_epochs checkpoint.every_steps checkpoint.keep "
        "limits.heartbeat",
        lambda v: v > 0,
        "must be above 0",
    ),
    (
        "network.lrn.alpha network.lrn.beta network.map_norm.alpha network.map_norm.beta "
        "seed mesh.data mesh.tower mesh.cpu_devices augment.colour_noise optimizer.weight_decay data.threads "
        "data.keep_mib schedule.max_drops schedule.warmup_epochs augment.colour_until train.steps "
        "train.stall_steps train.blocks train.parts checkpoint.keep_epochs limits.stuck profile_steps",
        lambda v: v >= 0,
        "must not be negative",
    ),
)


def _complaints(config: Config) -> Iterable[str]:
    """What is wrong with a config, the first first."""
    for paths, holds, words in _RULES:
        for path in paths.split():
            value = operator.attrgetter(path)(config)
            if not holds(value):
                yield f"{path}={value} {words}"
    network, data = config.network, config.data
    yield from _network_complaints(network)
    for field, named in (
        ("optimizer.layer_decay", config.optimizer.layer_decay),
        ("schedule.layers", config.schedule.layers),
    ):
        for name, *numbers in named:
            if name not in network.layers():
                yield f"{field} names {name}; there is {', '.join(network.layers())}"
            if min(numbers) < 0:
                yield f"{field}: {name} must not have a negative number, {min(numbers)}"
    if data.size < network.image_size:
        yield f"data.size={data.size} is smaller than the crop, network.image_size={network.image_size}"
    yield from _schedule_complaints(config.schedule, config.train)
    yield from _block_complaints(config)
    if bool(config.expected.top1_error) != bool(config.expected.views):
        yield (
            f"expected.top1_error={config.expected.top1_error} and expected.views={config.expected.views}: "
            "give both, or 0 for both"
        )


def _block_complaints(config: Config) -> Iterable[str]:
    blocks, batch = config.train.blocks, config.train.batch_size
    if blocks and batch % blocks:
        below, above = batch // blocks * blocks, (batch // blocks + 1) * blocks
        choices = f"{below} or {above}" if below else str(above)
        yield f"train.blocks={blocks} does not divide train.batch_size={batch}; choose {choices}"
    normalised = [name for name, conv in config.network.convs().items() if "batch_norm" in conv.then]
    if config.train.parts and normalised:
        yield (
            f"train.parts={config.train.parts} fills short batches up, which the batch_norm of "
            f"{', '.join(normalised)} would count: say --config.train.parts=0"
        )
    if blocks and normalised:
        yield (
            f"train.blocks={blocks} splits the batch that the batch_norm of {', '.join(normalised)} takes as "
            "a whole: say --config.train.blocks=0"
        )


def _schedule_complaints(schedule: ScheduleConfig, train: TrainConfig) -> Iterable[str]:
    for field, curve in (("schedule", schedule), ("schedule.biases", schedule.biases)):
        if curve.drops and curve.kind != "drops":
            yield (
                f"{field}.drops={curve.drops} is of the kind drops, and {field}.kind={curve.kind}; say "
                f'--config.{field}.drops="()" or --config.{field}.kind=drops'
            )
    if not train.steps and schedule.warmup_epochs >= train.epochs:
        yield f"schedule.warmup_epochs={schedule.warmup_epochs} leaves nothing of train.epochs={train.epochs}"


def _network_complaints(network: NetworkConfig) -> Iterable[str]:
    for name, layer in (network.convs() | network.hidden()).items():
        if layer.width < 0 or layer.width % network.towers:
            yield f"network.{name}.width={layer.width} cannot be split over network.towers={network.towers}"
    for name, conv in network.convs().items():
        if conv.size <= 0 or conv.stride <= 0 or not 0 <= conv.padding < conv.size:
            yield (
                f"network.{name}: size={conv.size} and stride={conv.stride} must be above 0, "
                f"padding={conv.padding} from 0 to {conv.size - 1}"
            )
    for name, layer in network.layers().items():
        if layer.deviation < 0:
            yield f"network.{name}.deviation={layer.deviation} must not be negative"
    if network.pool.stride > network.pool.window:
        yield f"network.pool.stride={network.pool.stride} skips pixels: window={network.pool.window}"
    yield from _naming_complaints(network)


def _naming_complaints(network: NetworkConfig) -> Iterable[str]:
    """Fields that name layers, and operations after them."""
    for field, named, there in (
        ("crossings", network.crossings, tuple(network.layers())),
        ("unshared", network.unshared, tuple(network.convs())),
    ):
        for name in named:
            if name not in there:
                yield f"network.{field} names {name}; there is {', '.join(there)}"
            if named.count(name) > 1:
                yield f"network.{field} names {name} {named.count(name)} times"
    for name, conv in network.convs().items():
        field = f"network.{name}.then={conv.then}"
        for operation in conv.then:
            if conv.then.count(operation) > 1:
                yield f"{field} has {operation} {conv.then.count(operation)} times"
        for kind, several in (("pools", POOLS), ("norms", NORMS)):
            found = [operation for operation in conv.then if operation in several]
            if len(found) > 1 and (kind == "pools" or "batch_norm" in found):
                yield f"{field} has two {kind}, {' and '.join(found)}: take one of them out"
