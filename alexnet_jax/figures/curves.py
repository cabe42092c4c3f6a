"""Learning curves: errors and losses against epochs, and where its learning rate fell.

Metrics of training are means over the steps since the line before, with dropout and augmentation on; those of
validation are of the whole split, without.
"""

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alexnet_jax.config.fields import Config, ScheduleConfig
from alexnet_jax.data.packed import find_packed
from alexnet_jax.errors import RefusedError
from alexnet_jax.figures.style import COLOURS, FAINT, LIGHT, LINES, SMALL, USUAL, head, plain, sheet
from alexnet_jax.trained.opened import TrainedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPLITS = ("train", "validation")
STEADY = ("plateau", "drops")  # schedules whose rate stays between its drops
LEAST = 5  # classes, of which a top-5 error is none
MARKS = 20  # dots on a curve
NAMES = {"top1_error": "top-1", "top5_error": "top-5"}


@dataclass(frozen=True)
class Drop:
    """The learning rate falls."""

    at: float
    rate: float


@dataclass(frozen=True)
class Curves:
    """The metrics of a run, over epochs where their length is known, else over steps."""

    unit: str  # epochs or steps
    at: dict[str, np.ndarray]  # f64[lines] for each split
    metrics: dict[tuple[str, str], np.ndarray]  # by split and name: f64[lines], nan where there was none
    rates: np.ndarray  # of the lines of training
    drops: tuple[Drop, ...]


def curves(opened: TrainedRun) -> "Figure":
    """Errors above, losses below, and the rate: its drops as marks, or a curve where it falls smoothly."""
    found = read_curves(opened.config, opened.workdir.metrics())
    steady = opened.config.schedule.kind in STEADY and not opened.config.schedule.warmup_epochs
    has_rates = len(found.rates) > 0 and np.isfinite(found.rates).any()
    figure = sheet(4.6 if steady or not has_rates else 5.6)
    heights = [3, 2] if steady or not has_rates else [3, 2, 1]
    panels = figure.subplots(len(heights), 1, sharex=True, gridspec_kw={"height_ratios": heights})
    panels[0].set_xlim(0, max(1, *(at.max(initial=0) for at in found.at.values())))
    _draw(panels[0], found, errors(opened.config.network.classes), percent=True)
    _draw(panels[1], found, ("loss",), percent=False)
    if len(panels) == 3:
        _draw_rates(panels[2], found, stepwise=opened.config.schedule.kind != "polynomial")
    else:
        _mark_drops(panels[:2], found)
    panels[-1].set_xlabel(found.unit, fontsize=USUAL)
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    panels[-1].xaxis.set_major_formatter("{x:,.0f}")
    head(figure, _verdict(found, errors(opened.config.network.classes)))
    return figure


def errors(classes: int) -> tuple[str, ...]:
    """The errors that say something about so many classes."""
    return ("top1_error", "top5_error") if classes > LEAST else ("top1_error",)


def read_curves(config: Config, lines: list[dict[str, Any]]) -> Curves:
    """Reads the curves from the lines of a run's log."""
    own = {split: [line for line in lines if line["split"] == split] for split in SPLITS}
    if not any(own.values()):
        raise RefusedError(
            f"this run has no metrics yet: it has not come to train.log_every={config.train.log_every} steps"
        )
    epoch = steps_per_epoch(config)
    at = {split: np.array([line["step"] / (epoch or 1) for line in own[split]]) for split in SPLITS}
    metrics = {
        (split, name): np.array([_number(line, name) for line in own[split]])
        for split, name in itertools.product(SPLITS, ("top1_error", "top5_error", "loss"))
    }
    rates = np.array([_number(line, "learning_rate") for line in own["train"]])
    return Curves(
        "epochs" if epoch else "steps", at, metrics, rates, find_drops(config.schedule, at, rates, epoch)
    )


def find_drops(
    config: ScheduleConfig, at: dict[str, np.ndarray], rates: np.ndarray, epoch: float | None
) -> tuple[Drop, ...]:
    """Wherever the rate is lower than in the line before.

    It fell somewhere between the two: where the schedule says, or after the last validation there.
    """
    if config.kind not in STEADY:
        return ()
    stated = np.array(config.drops) if epoch and config.kind == "drops" else at["validation"]
    drops = []
    for i in np.flatnonzero(rates[1:] < rates[:-1] * (1 - 1e-6)):
        before, after = at["train"][[i, i + 1]]
        # The rate of a line was chosen before the validation of its own step.
        between = stated[(stated >= before) & (stated < after)]
        drops.append(Drop(float(between[-1] if len(between) else after), float(rates[i + 1])))
    return tuple(drops)


def steps_per_epoch(config: Config) -> float | None:
    """The steps of an epoch, where the run's data set is here."""
    try:
        facts = find_packed(config.data).facts
    except RefusedError:  # the run may have been made elsewhere
        return None
    return float(config.train.epoch_steps(facts["splits"]["train"]["pictures"]))


def _number(line: dict[str, Any], name: str) -> float:
    value = line.get(name)
    return float("nan") if value is None else float(value)


def _verdict(found: Curves, names: tuple[str, ...]) -> str:
    """The result of the run, by its last validation, or else its last line of training."""
    split = "validation" if len(found.at["validation"]) else "train"
    percent = [100 * found.metrics[split, name][-1] for name in names]
    listed = ", ".join(f"{NAMES[name]} {value:.1f} %" for name, value in zip(names, percent, strict=True))
    what = "Validation" if split == "validation" else "No validation yet; training"
    loss, last = found.metrics[split, "loss"][-1], found.at[split][-1]
    end = f"{last:,.0f} steps" if found.unit == "steps" else f"{last:.4g} epochs"
    return f"{what} error after {end}: {listed}; loss {loss:.3f}"


def _draw(axes: "Axes", found: Curves, names: tuple[str, ...], *, percent: bool) -> None:
    """A panel: a colour for each metric and a style for each split, with a legend."""
    for name, split in itertools.product(names, reversed(SPLITS)):
        x, y = found.at[split], found.metrics[split, name] * (100 if percent else 1)
        if not np.isfinite(y).any():
            continue
        words = f"{NAMES[name]}, {split}" if percent else split
        axes.plot(x, y, label=words, clip_on=False, **_look(name, split, points=len(x)))
    axes.set_ylabel("error (%)" if percent else "loss", fontsize=USUAL)
    axes.set_ylim(bottom=0)
    plain(axes)
    if axes.lines:
        beside = {"loc": "upper left", "bbox_to_anchor": (1, 1), "frameon": False}
        axes.legend(fontsize=SMALL, handlelength=3, **beside)


def _look(name: str, split: str, *, points: int) -> dict[str, Any]:
    """Validation is drawn thicker, with about twenty dots; a curve of one point is a dot in any case."""
    fifth, trained = name == "top5_error", split == "train"
    look = {"color": COLOURS[fifth], "linestyle": LINES[(1 if trained else 0) + 2 * fifth]}
    look |= {"linewidth": 1.1 if trained else 1.8, "markersize": 3.5}
    look |= {"marker": "s" if fifth else "o", "markevery": max(1, points // MARKS)}
    return look if points == 1 or not trained else look | {"marker": ""}


def _mark_drops(panels: np.ndarray, found: Curves) -> None:
    """A line at each drop, the new rate above it; of names that would meet, the next is higher."""
    if not (len(found.rates) and np.isfinite(found.rates).any()):
        return
    first = found.rates[np.isfinite(found.rates)][0]
    marks = [
        (float(panels[0].get_xlim()[0]), f"rate {first:g}"),
        *((d.at, f"{d.rate:g}") for d in found.drops),
    ]
    low, high = panels[0].get_xlim()
    taken: list[float] = []  # where the names of each row end
    for place, words in marks:
        share = (place - low) / (high - low)
        row = next((i for i, end in enumerate(taken) if end < share), len(taken))
        taken[row : row + 1] = [share + 0.02 * len(words)]
        panels[0].annotate(
            words,
            (place, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2 + 9 * row),
            textcoords="offset points",
            fontsize=SMALL,
            color=FAINT,
        )
    for axes, drop in itertools.product(panels, found.drops):
        axes.axvline(drop.at, color=LIGHT, linewidth=1, zorder=0)


def _draw_rates(axes: "Axes", found: Curves, *, stepwise: bool) -> None:
    """The rate itself, where marks would not do."""
    style = "steps-pre" if stepwise else "default"
    axes.plot(found.at["train"], found.rates, color=FAINT, linewidth=1.4, drawstyle=style)
    axes.set_ylabel("rate", fontsize=USUAL)
    if (found.rates > 0).all():
        axes.set_yscale("log")
    plain(axes)
