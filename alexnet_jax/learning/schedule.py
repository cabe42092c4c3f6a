"""Learning rates (section 5): a function of the epoch and of the validation errors seen so far."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from alexnet_jax.config.fields import LAYERS, BiasRateConfig, Config, ScheduleConfig

Rates = dict[str, dict[str, np.float32]]  # of the kernel and the bias of every layer that there may be


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pace:
    """The values of a step that the host decides."""

    rates: Rates
    colour: np.float32  # 1 while there is colour noise, then 0

    @classmethod
    def steady(cls, rate: float) -> "Pace":
        """A constant learning rate for all layers, and colour noise."""
        return cls(rates_of(rate, rate), np.float32(1))


def make_pace(config: Config, epoch: float, epochs: float, errors: Sequence[float]) -> Pace:
    """The pace at an epoch (fractional, from 0) of a run of `epochs`, after evaluations with `errors`."""
    until = config.augment.colour_until
    colour = np.float32(not until or epoch < until)
    return Pace(learning_rates(config.schedule, epoch, epochs, errors), colour)


def rates_of(kernels: float, biases: float) -> Rates:
    """The same for all layers."""
    return {name: {"kernel": np.float32(kernels), "bias": np.float32(biases)} for name in LAYERS}


def learning_rates(config: ScheduleConfig, epoch: float, epochs: float, errors: Sequence[float]) -> Rates:
    """The rates of weights and biases, layer by layer."""
    weights, ratio = learning_rate(config, epoch, epochs, errors), config.biases.ratio
    if config.biases.kind == "weights":
        biases = ratio * weights
    else:
        biases = ratio * config.learning_rate * _warmth(config, epoch) / _fall(config.biases, epoch, epochs)
    rates = rates_of(weights, biases)
    for name, since, rate in sorted(config.layers, key=lambda own: own[1]):
        if epoch >= since:
            own = ratio * rate if config.biases.kind == "weights" else biases
            rates[name] = {"kernel": np.float32(rate), "bias": np.float32(own)}
    return rates


def learning_rate(config: ScheduleConfig, epoch: float, epochs: float, errors: Sequence[float]) -> float:
    """The rate of the weights of all layers that have none of their own."""
    top = config.learning_rate * _warmth(config, epoch)
    if config.kind == "plateau":
        return top / config.factor ** plateau_drops(errors, config.patience, config.max_drops)
    if config.kind == "polynomial":
        return top * (1 - min(epoch / epochs, 1.0)) ** config.power
    return top / _fall(config, epoch, epochs)


def plateau_drops(errors: Sequence[float], patience: int, max_drops: int) -> int:
    """The number of stalls: `patience` evaluations in a row without a new best."""
    best, stalled, drops = float("inf"), 0, 0
    for error in errors:
        if error < best:
            best, stalled = error, 0
        else:
            stalled += 1
        if stalled == patience and drops < max_drops:
            stalled, drops = 0, drops + 1
    return drops


def _fall(curve: ScheduleConfig | BiasRateConfig, epoch: float, epochs: float) -> float:
    """The factor by which a rate has fallen, at stated epochs or in equally long levels."""
    if curve.kind == "drops":
        return curve.factor ** sum(epoch >= drop for drop in curve.drops)
    level = min(int(epoch / epochs * curve.levels), curve.levels - 1)
    return curve.factor ** (level / (curve.levels - 1))


def _warmth(config: ScheduleConfig, epoch: float) -> float:
    """The factor of the warm-up, from 0 to 1."""
    return min(epoch / config.warmup_epochs, 1.0) if config.warmup_epochs else 1.0
