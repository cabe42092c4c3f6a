"""What a config file fills: typed and frozen; nothing below the commands sees a ConfigDict.

There are no defaults here: every value stands in a file of `configs/`, with its reason. `build.py` fills
these classes, and checks them once.
"""

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

CONVS = ("conv1", "conv2", "conv3", "conv4", "conv5", "conv6")
LAYERS = (*CONVS, "fc6", "fc7", "fc8")

Operation = Literal["activation", "lrn", "map_norm", "batch_norm", "max_pool", "average_pool"]
POOLS: tuple[Operation, ...] = ("max_pool", "average_pool")
NORMS: tuple[Operation, ...] = ("lrn", "map_norm", "batch_norm")
Rounding = Literal["up", "down"]


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
    """A convolution by `width` kernels of `size` x `size` pixels, zeros around the image.

    A last kernel that overlaps the image's end is kept, as in the authors' code, and sees zeros beyond, if
    `rounding` is up.
    """

    size: int
    stride: int
    padding: int
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

    size: int
    k: float
    alpha: float
    alpha_times: Literal["sum", "mean"]
    beta: float
    over: Literal["tower", "all"]  # the maps among which are the neighbours: all, as one GPU has them


@dataclass(frozen=True)
class MapNormConfig:
    """Within a map: a / (k + alpha * mean of squares over `size` x `size` pixels) ^ beta; the source only."""

    size: int
    k: float
    alpha: float
    beta: float


@dataclass(frozen=True)
class PoolConfig:
    """Pools: overlapping where the window is larger than the stride.

    A last window that overlaps the image's end is kept, as in the authors' code, if `rounding` is up.
    """

    window: int
    stride: int
    rounding: Rounding


@dataclass(frozen=True)
class BatchNormConfig:
    """Each map by its mean and variance over the batch; it has no weights of its own."""

    epsilon: float  # is added to the variance
    decay: float  # of the running averages that are used at test, in each step


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
    batch_norm: BatchNormConfig
    dropout: float  # of the outputs of fc6 and fc7
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
    """The learning rate of biases: `ratio` times that of weights, falling with it or in a way of its own."""

    ratio: float
    kind: Literal["weights", "drops", "dexp"]
    factor: float
    drops: tuple[float, ...]
    levels: int


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
    # (layer, epoch, rate): from then on its weights have their own, 0 freezes them; its biases with them, if
    # `biases.kind` is weights.
    layers: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True)
class TrainConfig:
    batch_size: int
    epochs: float
    steps: int  # 0 stands for as many as `epochs` takes
    order: Literal["shuffled", "fixed"]  # drawn anew for every epoch, or once for all
    # An epoch is taken in so many parts, as from the source's files, and the last batch of each is short.
    # 0: an epoch's last batch goes on into the next.
    parts: int
    # A batch is computed in so many blocks, whose gradients are added in one order: on any mesh the same.
    # 0: each row of devices computes its part at once, and they are added as suits the machines.
    blocks: int
    log_every: int
    stall_steps: int  # without progress beyond guessing, after which a warning says what to change; 0: none

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


@dataclass(frozen=True)
class EvaluationConfig:
    batch_size: int
    every_epochs: float
    views: int


@dataclass(frozen=True)
class CheckpointConfig:
    every_steps: int  # training never gets further ahead of the newest one on disk
    keep: int  # so many of the newest
    keep_epochs: float  # and the first after each so many epochs; 0: none
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
    """After how many seconds something is taken for dead."""

    heartbeat: int  # another process, without a sign of life
    stuck: int  # this one, without a step or a batch of evaluation: all stacks, and exit code 1; 0: never


@dataclass(frozen=True)
class ExpectedConfig:
    """The validation error that a run of this config should come to; 0 and 0 where nobody knows."""

    top1_error: float
    views: int


@dataclass(frozen=True)
class Config:
    """One run."""

    seed: int
    init_from: (
        str  # the workdir of a run whose weights, but for the classifier's, this one begins with; or "?"
    )
    network: NetworkConfig
    mesh: MeshConfig
    data: DataConfig
    augment: AugmentConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    train: TrainConfig
    evaluation: EvaluationConfig
    checkpoint: CheckpointConfig
    limits: LimitsConfig
    expected: ExpectedConfig
    profile_steps: int  # so many steps after the compilation are profiled, for TensorBoard; 0: none
    wandb: str  # the project of Weights & Biases that hears of the run too; "": none
