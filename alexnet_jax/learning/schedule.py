"""Learning rates (section 5): a function of the epoch and of the validation errors seen so far."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from alexnet_jax.config import LAYERS, Config, ScheduleConfig


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pace:
    """What the host tells a step."""

    rates: np.ndarray  # f32[layers, 2]: of the weights and of the biases of each of LAYERS
    colour: np.ndarray  # f32[]: 1 while there is colour noise, then 0

    @classmethod
    def steady(cls, rate: float) -> "Pace":
        """One rate for all layers, and colour noise."""
        return cls(np.full((len(LAYERS), 2), rate, np.float32), np.ones((), np.float32))


def make_pace(config: Config, epoch: float, epochs: float, errors: Sequence[float]) -> Pace:
    """At an epoch (fractional, from 0) of a run of `epochs`, after evaluations that gave `errors`."""
    until = config.augment.colour_until
    colour = np.float32(not until or epoch < until)
    return Pace(learning_rates(config.schedule, epoch, epochs, errors), np.asarray(colour))


def learning_rates(
    config: ScheduleConfig, epoch: float, epochs: float, errors: Sequence[float]
) -> np.ndarray:
    """The rates of weights and biases, f32[layers, 2]."""
    weights = learning_rate(config, epoch, epochs, errors)
    biases = config.biases
    if biases.follow:
        bias = biases.ratio * weights
    else:
        base = biases.ratio * config.learning_rate * _warmth(config, epoch)
        bias = base / biases.factor ** _passed(biases.drops, epoch)
    rates = np.tile(np.float32([weights, bias]), (len(LAYERS), 1))
    for name, since, rate in config.layers:
        if epoch >= since:
            rates[LAYERS.index(name)] = rate, biases.ratio * rate
    return rates


def learning_rate(config: ScheduleConfig, epoch: float, epochs: float, errors: Sequence[float]) -> float:
    """The rate of the weights of all layers that have none of their own."""
    gone = min(epoch / epochs, 1.0)
    match config.kind:
        case "plateau":
            fall = config.factor ** plateau_drops(errors, config.patience, config.max_drops)
        case "drops":
            fall = config.factor ** _passed(config.drops, epoch)
        case "dexp":
            level = min(int(gone * config.levels), config.levels - 1)
            fall = config.factor ** (level / (config.levels - 1))
        case "polynomial":
            return config.learning_rate * _warmth(config, epoch) * (1 - gone) ** config.power
    return config.learning_rate * _warmth(config, epoch) / fall


def plateau_drops(errors: Sequence[float], patience: int, max_drops: int) -> int:
    """How often the error has stalled: `patience` evaluations in a row without a new best."""
    best, stalled, drops = float("inf"), 0, 0
    for error in errors:
        if error < best:
            best, stalled = error, 0
        else:
            stalled += 1
        if stalled == patience and drops < max_drops:
            stalled, drops = 0, drops + 1
    return drops


def _passed(drops: Sequence[float], epoch: float) -> int:
    return sum(epoch >= drop for drop in drops)


def _warmth(config: ScheduleConfig, epoch: float) -> float:
    """From 0 to 1 during the warm-up."""
    return min(epoch / config.warmup_epochs, 1.0) if config.warmup_epochs else 1.0
