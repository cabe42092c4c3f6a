"""Learning rates (section 5): a function of the epoch and of the validation errors seen so far."""

from collections.abc import Sequence

from alexnet_jax.config import ScheduleConfig


def learning_rate(config: ScheduleConfig, epoch: float, errors: Sequence[float]) -> float:
    """The rate at an epoch (fractional, from 0), after evaluations that gave `errors`."""
    if config.kind == "drops":
        drops = sum(epoch >= drop for drop in config.drops)
    else:
        drops = plateau_drops(errors, config.patience, config.max_drops)
    return config.learning_rate / config.factor**drops


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
