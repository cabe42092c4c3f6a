"""What a config file fills: typed, frozen, checked once; nothing below the commands sees a ConfigDict.

There are no defaults here: every value stands in a file of `configs/`, with its reason.
"""

import dataclasses
import difflib
import math
import operator
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from alexnet_jax.errors import ConfigError


@dataclass(frozen=True)
class Conv1Config:
    """The first convolution's kernels, `size` x `size` pixels, and the distance between them."""

    size: int
    stride: int


@dataclass(frozen=True)
class LrnConfig:
    """Local response normalisation: a / (k + alpha * sum of squares over `size` maps) ^ beta."""

    size: int
    k: float
    alpha: float
    beta: float


@dataclass(frozen=True)
class PoolConfig:
    """Max pooling: overlapping where the window is larger than the stride."""

    window: int
    stride: int


@dataclass(frozen=True)
class NetworkConfig:
    """The network. Widths are totals over all towers; tuples of eight go from conv1 to fc8."""

    towers: int
    image_size: int
    classes: int
    conv1: Conv1Config
    conv_widths: tuple[int, ...]
    fc_widths: tuple[int, ...]
    activation: Literal["relu", "tanh", "sigmoid"]
    lrn: LrnConfig
    pool: PoolConfig
    dropout: float
    weight_deviations: tuple[float, ...]
    biases: tuple[float, ...]
    compute_dtype: Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class MeshConfig:
    """The device mesh, data x tower. 0 stands for as many as the devices allow."""

    data: int
    tower: int
    cpu_devices: int  # simulate so many on the CPU; 0 takes the machine's devices as they are


@dataclass(frozen=True)
class DataConfig:
    """A packed data set: `name` at `size` x `size` pixels, below `dir`."""

    name: str
    size: int
    encoding: Literal["raw", "jpeg"]
    dir: str  # "" stands for $ALEXNET_DATA_DIR, or ~/.cache/alexnet_jax
    read_ahead: int  # batches that the host prepares before they are asked for
    threads: int  # that read and decode; 0 stands for as many as there are cores
    keep_mib: int  # keep raw splits of up to so many MiB in memory once they are read; 0 keeps none
    trace: bool  # write a digest of what each step reads to trace.jsonl


@dataclass(frozen=True)
class AugmentConfig:
    """Section 4.1. The deviation of the noise along a component is `colour_noise` times `colour_unit`."""

    flip: bool
    colour_noise: float
    colour_unit: Literal["root_eigenvalue", "eigenvalue"]


@dataclass(frozen=True)
class OptimizerConfig:
    """Section 5: momentum and weight decay."""

    momentum: float
    weight_decay: float
    decay_biases: bool


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate: divided by `factor` at each epoch in `drops`, or whenever validation stalls."""

    kind: Literal["plateau", "drops"]
    learning_rate: float
    factor: float
    drops: tuple[float, ...]
    patience: int  # plateau: evaluations without a new best before a drop
    max_drops: int


@dataclass(frozen=True)
class TrainConfig:
    batch_size: int
    epochs: float
    steps: int  # 0 stands for as many as `epochs` takes
    log_every: int


@dataclass(frozen=True)
class EvaluationConfig:
    batch_size: int
    every_epochs: float
    views: int


@dataclass(frozen=True)
class CheckpointConfig:
    every_steps: int
    keep: int


@dataclass(frozen=True)
class Config:
    """One run."""

    seed: int
    network: NetworkConfig
    mesh: MeshConfig
    data: DataConfig
    augment: AugmentConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    train: TrainConfig
    evaluation: EvaluationConfig
    checkpoint: CheckpointConfig


def build(values: Mapping[str, Any]) -> Config:
    """A checked `Config` from nested dictionaries, such as a config file or a `config.json`."""
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
        if isinstance(value, Iterable) and not isinstance(value, str):
            return tuple(_convert(arguments[0], item, path) for item in value)
    elif wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    elif type(value) is wanted and (wanted is not float or math.isfinite(value)):
        return value
    name = wanted if isinstance(wanted, types.GenericAlias) else wanted.__name__
    raise ConfigError(f"config.{path}={value!r} must be of type {name}")


Rule = tuple[str, Callable[[Any], bool], str]

# What each field must be by itself: "section.name other names", a test, and the test in words.
_RULES: tuple[Rule, ...] = (
    ("network.towers", lambda v: v in (1, 2, 4), "must be 1, 2 or 4"),
    ("network.classes", lambda v: v >= 2, "must be at least 2"),
    ("network.conv_widths", lambda v: len(v) == 5, "must have 5 entries, conv1 to conv5"),
    ("network.fc_widths", lambda v: len(v) == 2, "must have 2 entries, fc6 and fc7"),
    ("network.weight_deviations network.biases", lambda v: len(v) == 8, "must have 8 entries, conv1 to fc8"),
    ("network.lrn.size", lambda v: v >= 1 and v % 2, "must be odd, so that a window has a centre"),
    ("network.dropout optimizer.momentum", lambda v: 0 <= v < 1, "must be in [0, 1)"),
    ("evaluation.views", lambda v: v in (1, 10), "must be 1 (centre) or 10 (corners, centre, flips)"),
    ("schedule.drops", lambda v: list(v) == sorted(v), "must ascend"),
    (
        "network.image_size network.conv1.size network.conv1.stride network.lrn.k network.pool.window "
        "network.pool.stride data.size data.read_ahead schedule.learning_rate schedule.factor "
        "schedule.patience train.batch_size train.epochs train.log_every evaluation.batch_size "
        "evaluation.every_epochs checkpoint.every_steps checkpoint.keep",
        lambda v: v > 0,
        "must be above 0",
    ),
    (
        "seed mesh.data mesh.tower mesh.cpu_devices augment.colour_noise optimizer.weight_decay data.threads "
        "data.keep_mib schedule.max_drops train.steps",
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
    for width in (*network.conv_widths, *network.fc_widths):
        if width <= 0 or width % network.towers:
            yield f"a layer of {width} units cannot be split over network.towers={network.towers}"
    if data.size < network.image_size:
        yield f"data.size={data.size} is smaller than the crop, network.image_size={network.image_size}"
