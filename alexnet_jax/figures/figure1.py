"""Figure 1: training error with ReLU and with tanh, and the steps that each takes to 25 %.

A run reports its training error as the mean over the steps since the report before. The steps to 25 % are
those of the first report at or below it, so that `train.log_every` is how finely they are known.
"""

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet_jax.config.changes import changes
from alexnet_jax.config.fields import Config
from alexnet_jax.data.packed import find_packed
from alexnet_jax.errors import RefusedError
from alexnet_jax.figures.style import FAINT, LARGE, LIGHT, SMALL, SPELT, USUAL, plain, save, sheet
from alexnet_jax.storage.workdir import Workdir

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TARGET = 0.25
PAPER_RATIO = 6.0
LOOKS = {"relu": {"color": "black", "linestyle": "-"}, "tanh": {"color": "0.35", "linestyle": (0, (5, 2))}}
# All but activations and rates, and how finely steps are known.
SAME = ("network", "augment", "optimizer", "data.name", "data.size", "train.batch_size", "train.log_every")
NEAR = 0.15  # of the axis: names of curves that meet 25 % nearer than that do not stand side by side


@dataclass(frozen=True)
class Curve:
    """A run's training error at every report."""

    path: Path
    config: Config
    steps: tuple[int, ...]
    errors: tuple[float, ...]
    facts: dict[str, Any] | None  # of its data set, where that is here

    @property
    def name(self) -> str:
        return SPELT[self.config.network.activation]

    @property
    def rate(self) -> float:
        return self.config.schedule.learning_rate

    @property
    def crossing(self) -> int | None:
        """The steps to 25 %, if it got there."""
        reports = zip(self.steps, self.errors, strict=True)
        return next((step for step, error in reports if error <= TARGET), None)

    @property
    def epoch(self) -> float | None:
        """The steps of an epoch, where they are known."""
        pictures = self.facts and self.facts["splits"]["train"]["pictures"]
        return float(self.config.train.epoch_steps(pictures)) if pictures else None

    def words(self) -> str:
        """A line about the run."""
        steps = self.crossing or self.steps[-1]
        end = f"{steps} steps" + (f" ({steps / self.epoch:.1f} epochs)" if self.epoch else "")
        if self.crossing:
            end = f"after {end}"
        else:
            end = f"not reached in {end}, the least is {100 * min(self.errors):.1f} %"
        return f"{self.name}   25 % training error {end}; rate {self.rate:g}, {self.path}"


def figure1(relu: Workdir, tanh: Workdir, path: Path) -> dict[str, Any]:
    """Draws the figure, says what it shows, and returns its numbers."""
    curves = read_curve(relu, "relu"), read_curve(tanh, "tanh")
    _check_comparable(*curves)
    draw_curves(*curves, path)
    for curve in curves:
        print(curve.words())
    print(ratio_words(*curves))
    steps = {f"{curve.config.network.activation}_steps": curve.crossing for curve in curves}
    return {"figure": str(path), **steps, "ratio": ratio(*curves), "paper_ratio": PAPER_RATIO}


def read_curve(workdir: Workdir, activation: str) -> Curve:
    """The curve of a run that must have an activation."""
    config = workdir.read_config()
    if config.network.activation != activation:
        raise RefusedError(
            f"{workdir.path} holds a run with network.activation={config.network.activation}, "
            f"not {activation}"
        )
    reports = [line for line in workdir.metrics() if line["split"] == "train"]
    if not reports:
        raise RefusedError(
            f"{workdir.path} has no metrics of training: its run has not come to train.log_every="
            f"{config.train.log_every} steps yet"
        )
    try:
        facts = find_packed(config.data).facts
    except RefusedError:  # the run may have been made elsewhere
        facts = None
    steps, errors = (tuple(line[name] for line in reports) for name in ("step", "top1_error"))
    return Curve(workdir.path, config, steps, errors, facts)


def _check_comparable(relu: Curve, tanh: Curve) -> None:
    """Refuses runs whose steps are not the same thing."""
    for change in changes(relu.config, tanh.config):
        if change.within(SAME) and change.name != "network.activation":
            raise RefusedError(
                f"{relu.path} has {change.name}={change.before} and {tanh.path} {change.name}={change.now}: "
                "their steps cannot be compared"
            )
    if relu.facts and tanh.facts and relu.facts["digest"] != tanh.facts["digest"]:
        raise RefusedError(
            f"{relu.path} and {tanh.path} have learnt from different pictures, both called "
            f"{relu.config.data.name}: their steps cannot be compared"
        )


def ratio(relu: Curve, tanh: Curve) -> float | None:
    """The ratio of the steps that tanh and ReLU take."""
    return tanh.crossing / relu.crossing if relu.crossing and tanh.crossing else None


def ratio_words(relu: Curve, tanh: Curve) -> str:
    """The measured ratio, with the paper's beside it."""
    times, paper = ratio(relu, tanh), f"(the paper: {PAPER_RATIO:g} times)"
    if times:
        return f"To 25 % training error tanh takes {times:.1f} times as many steps as ReLU {paper}"
    if relu.crossing and tanh.steps[-1] < relu.crossing:
        return (
            f"ReLU comes to 25 % training error after {relu.crossing} steps, and tanh has made only "
            f"{tanh.steps[-1]}: there is no ratio yet {paper}"
        )
    if relu.crossing:
        least = tanh.steps[-1] / relu.crossing
        return f"tanh has not come to 25 % training error in {least:.1f} times as many steps as ReLU {paper}"
    who = "ReLU has not" if tanh.crossing else "Neither has"
    return f"{who} come to 25 % training error in {relu.steps[-1]} steps: there is no ratio {paper}"


def draw_curves(relu: Curve, tanh: Curve, path: Path) -> None:
    """The curves as in the paper, ReLU solid and tanh dashed, and where they meet 25 %."""
    figure = sheet(4.4)
    axes = figure.add_subplot()
    epoch = relu.epoch or tanh.epoch
    width = 1.1 * max(relu.steps[-1], tanh.steps[-1])
    meet = relu.crossing and tanh.crossing and abs(relu.crossing - tanh.crossing) < NEAR * width
    lifts = [0, 40 if meet else 0]
    if not (relu.crossing or tanh.crossing):  # names at the ends of both, above the upper and below the lower
        lifts = [0, -56] if relu.errors[-1] > tanh.errors[-1] else [-56, 0]
    for curve, lift in zip((relu, tanh), lifts, strict=True):
        _draw_curve(axes, curve, epoch or 1, lift)
    axes.axhline(100 * TARGET, color=LIGHT, linewidth=0.8, zorder=0)
    axes.set_xlabel("Epochs" if epoch else "Steps")
    axes.set_ylabel("Training error (%)")
    axes.set_title(textwrap.fill(ratio_words(relu, tanh), 88), loc="left", fontsize=USUAL)
    axes.set_yticks([0, 25, 50, 75])
    axes.set_xlim(0, width / (epoch or 1))
    axes.set_ylim(0, 100 * max(*relu.errors, *tanh.errors) + 3)
    plain(axes)
    save(figure, path)


def _draw_curve(axes: "Axes", curve: Curve, epoch: float, lift: int) -> None:
    """A curve, and its name: below where it comes to 25 %, beside a line to the axis; else at its end.

    `lift` is how much higher it stands, in points.
    """
    look, points = LOOKS[curve.config.network.activation], {"textcoords": "offset points"}
    x, y = [step / epoch for step in curve.steps], [100 * error for error in curve.errors]
    axes.plot(x, y, linewidth=1.6, **look)
    end = (curve.crossing / epoch, 0) if curve.crossing else (x[-1], y[-1])
    axes.annotate(curve.name, end, xytext=(6, 29 + lift), fontsize=LARGE, **points)
    axes.annotate(f"rate {curve.rate:g}", end, xytext=(6, 17 + lift), fontsize=SMALL, color=FAINT, **points)
    if curve.crossing:
        at, level = curve.crossing / epoch, y[curve.steps.index(curve.crossing)]
        axes.plot([at, at], [0, level], color=LIGHT, linewidth=0.8, zorder=0)
        axes.plot(at, level, "o", color=look["color"], markersize=5)
        axes.annotate(f"{curve.crossing:,} steps", end, xytext=(6, 5 + lift), fontsize=SMALL, **points)
