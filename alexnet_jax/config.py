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

CONVS = ("conv1", "conv2", "conv3", "conv4", "conv5", "conv6")
LAYERS = (*CONVS, "fc6", "fc7", "fc8")


@dataclass(frozen=True)
class LayerConfig:
    """What a layer starts from: weights of N(0, deviation), biases of one value."""

    deviation: float
    bias: float


@dataclass(frozen=True)
class DenseConfig(LayerConfig):
    """A fully connected layer of `width` units, all towers together; 0 leaves it out."""

    width: int


@dataclass(frozen=True)
class ConvConfig(DenseConfig):
    """A convolution by `width` kernels of `size` x `size` pixels, `stride` apart, zeros around the image.

    As in the authors' code a last kernel that overlaps the image's end is kept, and sees zeros beyond.
    """

    size: int
    stride: int
    padding: int


@dataclass(frozen=True)
class LrnConfig:
    """Local response normalisation: a / (k + alpha * sum of squares over `size` maps) ^ beta.

    In the authors' code alpha multiplies the mean over the window. The layers are named by where it stands.
    """

    size: int
    k: float
    alpha: float
    alpha_times: Literal["sum", "mean"]
    beta: float
    before_activation: tuple[str, ...]
    after_activation: tuple[str, ...]
    after_pool: tuple[str, ...]


@dataclass(frozen=True)
class MapNormConfig:
    """Within a map: a / (k + alpha * mean of squares over `size` x `size` pixels) ^ beta; the source only.

    It comes last before the pool.
    """

    size: int
    k: float
    alpha: float
    beta: float
    after: tuple[str, ...]


@dataclass(frozen=True)
class PoolConfig:
    """Max pooling after some layers: overlapping where the window is larger than the stride.

    As in the authors' code a last window that overlaps the end is kept.
    """

    window: int
    stride: int
    after: tuple[str, ...]


@dataclass(frozen=True)
class NetworkConfig:
    """The network, layer by layer."""

    towers: int
    image_size: int
    classes: int
    conv1: ConvConfig
    conv2: ConvConfig
    conv3: ConvConfig
    conv4: ConvConfig
    conv5: ConvConfig
    conv6: ConvConfig  # over the last pool, in the nets that were pre-trained
    fc6: DenseConfig
    fc7: DenseConfig
    fc8: LayerConfig
    crossings: tuple[str, ...]  # the layers that read the maps of all towers
    unshared: tuple[str, ...]  # the convolutions with kernels of their own at every place
    activation: Literal["relu", "tanh", "sigmoid"]
    lrn: LrnConfig
    map_norm: MapNormConfig
    pool: PoolConfig
    dropout: float  # of the outputs of fc6 and fc7
    compute_dtype: Literal["float32", "bfloat16"]

    def convs(self) -> dict[str, ConvConfig]:
        """The convolutions that there are, in order."""
        slots = (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5, self.conv6)
        return {name: conv for name, conv in zip(CONVS, slots, strict=True) if conv.width}

    def hidden(self) -> dict[str, DenseConfig]:
        """The fully connected layers before the last."""
        return {name: layer for name, layer in (("fc6", self.fc6), ("fc7", self.fc7)) if layer.width}

    def layers(self) -> dict[str, LayerConfig]:
        """Everything that has weights."""
        return {**self.convs(), **self.hidden(), "fc8": self.fc8}


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
    shared_by: int  # so many pictures of a batch, side by side, share their crop and their flip
    last_offset: bool  # crops start at 0 to 32 at 256 and 224; without, at 0 to 31
    mean: Literal["under_crop", "centre"]  # the part of the mean picture that is taken off a crop
    colour_noise: float
    colour_unit: Literal["root_eigenvalue", "eigenvalue"]
    colour_divides: bool  # while there is noise, divide the input by 1 + colour_noise
    colour_until: float  # the epoch at which the noise ends; 0: never


@dataclass(frozen=True)
class OptimizerConfig:
    """Section 5: momentum and weight decay."""

    momentum: float
    weight_decay: float
    decay_biases: bool
    layer_decay: tuple[tuple[str, float], ...]  # layers whose weights have a decay of their own


@dataclass(frozen=True)
class BiasRateConfig:
    """The learning rate of biases: `ratio` times that of weights."""

    ratio: float
    follow: bool  # fall when the weights' rate falls; if not, only as stated here
    factor: float
    drops: tuple[float, ...]


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate of weights, and where those of biases and of single layers differ from it.

    plateau: divided by `factor` whenever the validation error stalls; drops: at epochs `drops`; dexp: at
    equal distances, by `factor` in all; polynomial: (1 - what is gone of the run) ^ `power`.
    """

    kind: Literal["plateau", "drops", "dexp", "polynomial"]
    learning_rate: float
    warmup_epochs: float  # of linear ascent from 0
    factor: float
    drops: tuple[float, ...]
    patience: int  # evaluations without a new best before a drop
    max_drops: int
    levels: int
    power: float
    biases: BiasRateConfig
    layers: tuple[tuple[str, float, float], ...]  # (layer, epoch, rate): from then on its own; 0 freezes it


@dataclass(frozen=True)
class TrainConfig:
    batch_size: int
    epochs: float
    steps: int  # 0 stands for as many as `epochs` takes
    order: Literal["shuffled", "fixed"]  # drawn anew for every epoch, or once for all
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
        items = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else None
        if items is not None and arguments[-1] is Ellipsis:
            return tuple(_convert(arguments[0], item, path) for item in items)
        if items is not None and len(items) == len(arguments):
            return tuple(_convert(kind, item, path) for kind, item in zip(arguments, items, strict=True))
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
    (
        "network.lrn.size network.map_norm.size",
        lambda v: v >= 1 and v % 2,
        "must be odd, so that a window has a centre",
    ),
    ("network.dropout optimizer.momentum", lambda v: 0 <= v < 1, "must be in [0, 1)"),
    ("evaluation.views", lambda v: v in (1, 10), "must be 1 (centre) or 10 (corners, centre, flips)"),
    ("schedule.drops schedule.biases.drops", lambda v: list(v) == sorted(v), "must ascend"),
    ("schedule.levels", lambda v: v >= 2, "must be at least 2"),
    (
        "network.image_size network.conv1.width network.lrn.k network.map_norm.k network.pool.window "
        "network.pool.stride data.size data.read_ahead schedule.learning_rate schedule.factor "
        "schedule.patience schedule.power schedule.biases.ratio schedule.biases.factor "
        "augment.shared_by train.batch_size train.epochs train.log_every evaluation.batch_size "
        "evaluation.every_epochs checkpoint.every_steps checkpoint.keep",
        lambda v: v > 0,
        "must be above 0",
    ),
    (
        "seed mesh.data mesh.tower mesh.cpu_devices augment.colour_noise optimizer.weight_decay data.threads "
        "data.keep_mib schedule.max_drops schedule.warmup_epochs augment.colour_until train.steps",
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
    convs, lrn = tuple(network.convs()), network.lrn
    for field, named, known in (
        ("crossings", network.crossings, tuple(network.layers())),
        ("unshared", network.unshared, convs),
        ("lrn.before_activation", lrn.before_activation, convs),
        ("lrn.after_activation", lrn.after_activation, convs),
        ("lrn.after_pool", lrn.after_pool, network.pool.after),
        ("map_norm.after", network.map_norm.after, convs),
        ("pool.after", network.pool.after, convs),
    ):
        for name in named:
            if name not in known:
                yield f"network.{field} names {name}; there is {', '.join(known) or 'no such layer'}"
    if network.pool.stride > network.pool.window:
        yield f"network.pool.stride={network.pool.stride} skips pixels: window={network.pool.window}"
