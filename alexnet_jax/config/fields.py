"""The config of a run, typed and frozen; nothing below the commands sees a ConfigDict.

There are no defaults here: every value stands in a file of `configs/`, with its reason. `building.py` fills
these classes and checks them once: every field by the rules beside it, then what fields must be together
(`complaints`).
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Literal

from alexnet_jax.config.rules import (
    ASCENDING,
    FIXED,
    FREE,
    HOSTS_OWN,
    ODD,
    POWER_OF_TWO,
    Amount,
    Count,
    Positive,
    PositiveInt,
    Rule,
    Share,
)

CONVS = ("conv1", "conv2", "conv3", "conv4", "conv5", "conv6")
CLASSIFIER = "fc8"
LAYERS = (*CONVS, "fc6", "fc7", CLASSIFIER)

Operation = Literal["activation", "lrn", "map_norm", "batch_norm", "max_pool", "average_pool"]
POOLS: tuple[Operation, ...] = ("max_pool", "average_pool")
NORMS: tuple[Operation, ...] = ("lrn", "map_norm", "batch_norm")
Rounding = Literal["up", "down"]


@dataclass(frozen=True)
class LayerConfig:
    """The initial values of a layer: weights of N(0, deviation), biases of one value."""

    deviation: Amount
    bias: float


@dataclass(frozen=True)
class DenseConfig(LayerConfig):
    """A fully connected layer of `width` units, all towers together; 0 leaves it out."""

    width: Count


@dataclass(frozen=True)
class ConvConfig(DenseConfig):
    """A convolution by `width` kernels of `size` x `size` pixels, zeros around the image.

    A last kernel that overlaps the image's end is kept, as in the authors' code, and sees zeros beyond, if
    `rounding` is up.
    """

    size: PositiveInt
    stride: PositiveInt
    padding: Count
    rounding: Rounding
    then: tuple[Operation, ...]  # what follows it, in order

    @property
    def pool(self) -> Operation | None:
        """The pool that follows it, if any does."""
        return next((operation for operation in self.then if operation in POOLS), None)


@dataclass(frozen=True)
class LrnConfig:
    """Local response normalisation: a / (k + alpha * sum of squares over `size` maps) ^ beta.

    In the authors' code alpha multiplies the mean over the window; neither sees the maps of another tower.
    """

    size: Annotated[PositiveInt, ODD]
    k: Positive
    alpha: Amount
    alpha_times: Literal["sum", "mean"]
    beta: Amount
    over: Literal["tower", "all"]  # the maps among which are the neighbours: all, as one GPU has them


@dataclass(frozen=True)
class MapNormConfig:
    """The authors' normalisation in maps: a / (k + alpha * mean of `size` x `size` squares) ^ beta."""

    size: Annotated[PositiveInt, ODD]
    k: Positive
    alpha: Amount
    beta: Amount


@dataclass(frozen=True)
class PoolConfig:
    """Pools: overlapping where the window is larger than the stride.

    A last window that overlaps the image's end is kept, as in the authors' code, if `rounding` is up.
    """

    window: PositiveInt
    stride: PositiveInt
    rounding: Rounding


@dataclass(frozen=True)
class BatchNormConfig:
    """Each map by its mean and variance over the batch; it has no weights of its own."""

    epsilon: Positive  # is added to the variance
    decay: Share  # of the running averages that are used at test, in each step


@dataclass(frozen=True)
class NetworkConfig:
    """The network, layer by layer."""

    towers: Annotated[int, Rule(lambda v: v in (1, 2, 4), "must be 1, 2 or 4")]
    image_size: PositiveInt
    classes: Annotated[int, Rule(lambda v: v >= 2, "must be at least 2")]
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
    batch_norm: BatchNormConfig
    dropout: Share  # of the outputs of fc6 and fc7
    # float32: exact. tf32: float32 with the products that an accelerator takes by default. bfloat16: weights,
    # sums, probabilities and updates are float32 even so.
    precision: Literal["float32", "tf32", "bfloat16"]

    def convs(self) -> dict[str, ConvConfig]:
        """The convolutions that there are, in order."""
        slots = (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5, self.conv6)
        return {name: conv for name, conv in zip(CONVS, slots, strict=True) if conv.width}

    def hidden(self) -> dict[str, DenseConfig]:
        """The fully connected layers before the last."""
        return {name: layer for name, layer in (("fc6", self.fc6), ("fc7", self.fc7)) if layer.width}

    def layers(self) -> dict[str, LayerConfig]:
        """The layers that have weights, in order."""
        return {**self.convs(), **self.hidden(), "fc8": self.fc8}

    def complaints(self) -> Iterator[str]:
        if not self.conv1.width:
            yield "network.conv1.width=0 must be above 0"
        for name, layer in (self.convs() | self.hidden()).items():
            if layer.width % self.towers:
                yield f"network.{name}.width={layer.width} cannot be split over network.towers={self.towers}"
        for name, conv in self.convs().items():
            if conv.padding >= conv.size:
                yield f"network.{name}.padding={conv.padding} must be from 0 to {conv.size - 1}, size - 1"
        if self.pool.stride > self.pool.window:
            yield f"network.pool.stride={self.pool.stride} skips pixels: window={self.pool.window}"
        for field, named, there in (
            ("crossings", self.crossings, self.layers()),
            ("unshared", self.unshared, self.convs()),
        ):
            yield from self._naming_complaints(field, named, tuple(there))
        for name, conv in self.convs().items():
            yield from self._order_complaints(f"network.{name}.then={conv.then}", conv.then)

    @staticmethod
    def _naming_complaints(field: str, named: tuple[str, ...], there: tuple[str, ...]) -> Iterator[str]:
        for name in named:
            if name not in there:
                yield f"network.{field} names {name}; there is {', '.join(there)}"
            if named.count(name) > 1:
                yield f"network.{field} names {name} {named.count(name)} times"

    @staticmethod
    def _order_complaints(field: str, then: tuple[Operation, ...]) -> Iterator[str]:
        for operation in then:
            if then.count(operation) > 1:
                yield f"{field} has {operation} {then.count(operation)} times"
        for kind, several in (("pools", POOLS), ("norms", NORMS)):
            found = [operation for operation in then if operation in several]
            if len(found) > 1 and (kind == "pools" or "batch_norm" in found):
                yield f"{field} has two {kind}, {' and '.join(found)}: take one of them out"


@dataclass(frozen=True)
class MeshConfig:
    """The device mesh, data x tower. 0 stands for as many as the devices allow."""

    data: Count
    tower: Count
    cpu_devices: Count  # simulate so many on the CPU; 0 takes the machine's devices as they are


@dataclass(frozen=True)
class DataConfig:
    """A packed data set: `name` at `size` x `size` pixels, below `dir`."""

    name: Annotated[str, Rule(bool, "must not be empty"), FIXED]
    size: Annotated[PositiveInt, FIXED]
    encoding: Annotated[Literal["raw", "jpeg"], FIXED]
    dir: Annotated[str, FREE, HOSTS_OWN]  # "" stands for $ALEXNET_DATA_DIR, or ~/.cache/alexnet_jax
    read_ahead: Annotated[PositiveInt, FREE]  # batches that the host prepares before they are asked for
    threads: Annotated[Count, FREE, HOSTS_OWN]  # that read and decode; 0 stands for the number of cores
    # Raw splits of up to so many MiB stay in memory once they are read.
    keep_mib: Annotated[Count, FREE, HOSTS_OWN]
    trace: Annotated[bool, FREE]  # write a digest of what each step reads to trace.jsonl


@dataclass(frozen=True)
class AugmentConfig:
    """Section 4.1. The deviation of the noise along a component is `colour_noise` times `colour_unit`."""

    flip: bool
    shared_by: PositiveInt  # so many pictures of a batch, side by side, share their crop and their flip
    last_offset: bool  # crops start at 0 to 32 at 256 and 224; without, at 0 to 31
    mean: Literal["under_crop", "centre"]  # the part of the mean picture that is taken off a crop
    colour_noise: Amount
    colour_unit: Literal["root_eigenvalue", "eigenvalue"]
    colour_divides: bool  # while there is noise, divide the input by 1 + colour_noise
    colour_until: Amount  # the epoch at which the noise ends; 0: never


@dataclass(frozen=True)
class OptimizerConfig:
    """Section 5: momentum and weight decay."""

    momentum: Share
    weight_decay: Amount
    decay_biases: bool
    layer_decay: tuple[tuple[str, float], ...]  # layers whose weights have a decay of their own


Factor = Annotated[float, Rule(lambda v: 1 <= v <= 1e6, "must be from 1, which changes nothing, to 1e6")]
Epochs = Annotated[tuple[float, ...], ASCENDING, Rule(lambda v: not v or v[0] >= 0, "must not be negative")]
Levels = Annotated[int, Rule(lambda v: v >= 2, "must be at least 2")]


@dataclass(frozen=True)
class BiasRateConfig:
    """The learning rate of biases: `ratio` times that of weights, falling with it or in a way of its own."""

    ratio: Positive
    kind: Literal["weights", "drops", "dexp"]
    factor: Factor
    drops: Epochs
    levels: Levels


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate of weights, and where those of biases and of single layers differ from it.

    plateau: divided by `factor` whenever the validation error stalls; drops: at epochs `drops`; dexp: at
    equal distances, by `factor` in all; polynomial: (1 - what is gone of the run) ^ `power`.
    """

    kind: Literal["plateau", "drops", "dexp", "polynomial"]
    learning_rate: Positive
    warmup_epochs: Amount  # of linear ascent from 0
    factor: Factor
    drops: Epochs
    patience: PositiveInt  # evaluations without a new best before a drop
    max_drops: Count
    levels: Levels
    power: Positive
    biases: BiasRateConfig
    # (layer, epoch, rate): from then on its weights have their own, 0 freezes them; its biases with them, if
    # `biases.kind` is weights.
    layers: tuple[tuple[str, float, float], ...]

    def complaints(self) -> Iterator[str]:
        for field, curve in (("schedule", self), ("schedule.biases", self.biases)):
            if curve.drops and curve.kind != "drops":
                yield (
                    f"{field}.drops={curve.drops} is of the kind drops, and {field}.kind={curve.kind}; say "
                    f'--config.{field}.drops="()" or --config.{field}.kind=drops'
                )


@dataclass(frozen=True)
class TrainConfig:
    batch_size: Annotated[PositiveInt, FIXED]
    epochs: Positive
    steps: Count  # 0 stands for as many as `epochs` takes
    order: Annotated[Literal["shuffled", "fixed"], FIXED]  # drawn anew for every epoch, or once for all
    # An epoch is taken in so many parts, as from the source's files, and the last batch of each is short.
    # 0: an epoch's last batch goes on into the next.
    parts: Annotated[Count, FIXED]
    # A batch is computed in so many blocks, whose gradients are added in one order: on any mesh the same.
    # 0: each row of devices computes its part at once, and they are added as suits the machines.
    blocks: Annotated[Count, POWER_OF_TWO]
    log_every: Annotated[PositiveInt, FREE]
    # A warning says what to change after so many steps without progress beyond guessing; 0: never.
    stall_steps: Annotated[Count, FREE]

    def complaints(self) -> Iterator[str]:
        blocks, batch = self.blocks, self.batch_size
        if blocks and batch % blocks:
            below, above = batch // blocks * blocks, (batch // blocks + 1) * blocks
            choices = f"{below} or {above}" if below else str(above)
            yield f"train.blocks={blocks} does not divide train.batch_size={batch}; choose {choices}"

    def epoch_steps(self, images: int) -> Fraction:
        """The steps of an epoch over so many pictures: a whole number where there are parts."""
        whole = sum(-(-len(part) // self.batch_size) for part in self.parts_of(images))
        return Fraction(whole) if self.parts else Fraction(images, self.batch_size)

    def parts_of(self, images: int) -> list[range]:
        """The pictures of each part, of an epoch's order."""
        ends = [images * number // max(self.parts, 1) for number in range(self.parts + 1)]
        return [range(*pair) for pair in itertools.pairwise(ends)]

    def length(self, images: int) -> int:
        """The steps of a run over so many pictures."""
        return self.steps or math.ceil(Fraction(str(self.epochs)) * self.epoch_steps(images))


_VIEWS = "must be 1 (centre), 9 (a 3 x 3 grid) or 10 (corners, centre, flips)"
Views = Annotated[int, Rule(lambda v: v in (1, 9, 10), _VIEWS)]


@dataclass(frozen=True)
class EvaluationConfig:
    batch_size: Annotated[PositiveInt, FREE]
    every_epochs: Positive
    views: Views


@dataclass(frozen=True)
class CheckpointConfig:
    every_steps: PositiveInt  # training never gets further ahead of the newest one on disk
    keep: PositiveInt  # so many of the newest
    keep_epochs: Amount  # and the first after each so many epochs; 0: none
    keep_best: bool  # and the one of the lowest validation error, which is saved when it is found
    when_full: Literal["go_on", "end"]  # what a run does that cannot save: it tries again later, or ends

    @property
    def ahead(self) -> int:
        """Steps that go on while a checkpoint is being written, before they wait for it."""
        return self.every_steps // 10

    @property
    def period(self) -> int:
        """Steps from the beginning of one to that of the next, which is on disk `ahead` steps later."""
        return self.every_steps - self.ahead


@dataclass(frozen=True)
class LimitsConfig:
    """Seconds after which a process is taken for dead."""

    heartbeat: PositiveInt  # another process, without a sign of life
    stuck: Count  # this one, without a step or a batch of evaluation: all stacks, and exit code 1; 0: never


@dataclass(frozen=True)
class ExpectedConfig:
    """The validation error that a run of this config should come to; 0 and 0 where nobody knows."""

    top1_error: Annotated[
        float, Rule(lambda v: 0 <= v <= 1, "must be a fraction, or 0 where it is not known")
    ]
    views: Annotated[
        int, Rule(lambda v: v in (0, 1, 9, 10), "must be 1, 9 or 10, or 0 where it is not known")
    ]

    def complaints(self) -> Iterator[str]:
        if bool(self.top1_error) != bool(self.views):
            yield (
                f"expected.top1_error={self.top1_error} and expected.views={self.views}: give both, or 0 for "
                "both"
            )


@dataclass(frozen=True)
class Config:
    """A run."""

    seed: Annotated[Count, Rule(lambda v: v < 2**32, "must be below 2^32: more bits are not used"), FIXED]
    # The workdir of a run whose weights, but for the classifier's, this one begins with; or "?"
    init_from: Annotated[
        str, Rule(lambda v: v != "?", "stands for a run to begin with: say --config.init_from=WORKDIR"), FIXED
    ]
    network: Annotated[NetworkConfig, FIXED]
    mesh: Annotated[MeshConfig, FREE]
    data: DataConfig
    augment: AugmentConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    train: TrainConfig
    evaluation: EvaluationConfig
    checkpoint: Annotated[CheckpointConfig, FREE]
    limits: Annotated[LimitsConfig, FREE]
    expected: Annotated[ExpectedConfig, FREE]
    # So many steps after the compilation are profiled, for TensorBoard; 0: none
    profile_steps: Annotated[
        Count, Rule(lambda v: v <= 1000, "must be at most 1000: they are kept in memory"), FREE
    ]
    # The project of Weights & Biases that hears of the run too; "": none
    wandb: Annotated[
        str,
        Rule(
            lambda v: v.isprintable() and not set(v) & set("/\\#?%:"),
            "must be the name of a project, without /\\#?%:",
        ),
        FREE,
    ]

    def complaints(self) -> Iterator[str]:
        network, train = self.network, self.train
        if self.data.size < network.image_size:
            yield (
                f"data.size={self.data.size} is smaller than the crop, "
                f"network.image_size={network.image_size}"
            )
        for field, named in (
            ("optimizer.layer_decay", self.optimizer.layer_decay),
            ("schedule.layers", self.schedule.layers),
        ):
            for name, *numbers in named:
                if name not in network.layers():
                    yield f"{field} names {name}; there is {', '.join(network.layers())}"
                if min(numbers) < 0:
                    yield f"{field}: {name} must not have a negative number, {min(numbers)}"
        if not train.steps and self.schedule.warmup_epochs >= train.epochs:
            yield (
                f"schedule.warmup_epochs={self.schedule.warmup_epochs} leaves nothing of "
                f"train.epochs={train.epochs}"
            )
        normalised = [name for name, conv in network.convs().items() if "batch_norm" in conv.then]
        listed = ", ".join(normalised)
        if train.parts and normalised:
            yield (
                f"train.parts={train.parts} fills short batches up, which the batch_norm of {listed} would "
                "count: say --config.train.parts=0"
            )
        if train.blocks and normalised:
            yield (
                f"train.blocks={train.blocks} splits the batch that the batch_norm of {listed} takes as a "
                "whole: say --config.train.blocks=0"
            )
