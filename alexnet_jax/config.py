"""What a config file fills: typed, frozen, checked once; nothing below the commands sees a ConfigDict."""

import dataclasses
import difflib
import typing
from dataclasses import dataclass
from typing import Any, Literal

from alexnet_jax.errors import ConfigError


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
    """The network; widths are totals over all towers, tuples go from conv1 to fc8."""

    towers: int
    image_size: int
    classes: int
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
    """The device mesh; 0 stands for as many as the devices allow."""

    data: int
    tower: int
    cpu_devices: int


@dataclass(frozen=True)
class Config:
    network: NetworkConfig
    mesh: MeshConfig
