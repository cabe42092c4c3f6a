"""Figure 4, left: pictures, and the five classes that the network thinks likeliest."""

from typing import TYPE_CHECKING

import numpy as np

from alexnet_jax.figures.style import FAINT, INK, LIGHT, RIGHT, SMALL, bare, head, percent, sheet, short
from alexnet_jax.trained.opened import TrainedRun
from alexnet_jax.trained.predictor import likeliest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 4  # right ones, and as many wrong ones
WORDS = 22  # letters below a picture


def chosen(log_probabilities: np.ndarray, labels: np.ndarray, count: int = SHOWN) -> np.ndarray:
    """The first rows that are answered rightly, and the first that are not."""
    right = log_probabilities.argmax(axis=1) == labels
    return np.concatenate([np.flatnonzero(right)[:count], np.flatnonzero(~right)[:count]])


def answers(opened: TrainedRun, rows: np.ndarray | None = None) -> "Figure":
    """Rows of the validation split; without any the first that are right, and the first that are wrong."""
    given, labels = opened.answers
    rows = chosen(given, labels) if rows is None else rows
    pictures, truth = opened.packed.read("validation", rows)
    classes, likely = likeliest(given[rows])
    wide = min(SHOWN, len(rows))
    high = -(-len(rows) // wide)
    figure = sheet(0.4 + 2.75 * high)
    grid = figure.subplots(2 * high, wide, squeeze=False, height_ratios=[1.4, 1] * high)
    for place in grid.flat:
        place.set_visible(False)
    for i, row in enumerate(zip(pictures, truth, classes, likely, strict=True)):
        above, below = grid[2 * (i // wide), i % wide], grid[2 * (i // wide) + 1, i % wide]
        _draw(above, below, opened.packed.class_names, *row)
    errors = np.mean(given.argmax(axis=1) != labels)
    head(
        figure,
        "The first validation pictures that the network gets right, and the first that it gets wrong (of "
        f"{len(labels):,} it gets {percent(errors)} wrong). Blue: the right class.",
    )
    return figure


def _draw(
    above: "Axes",
    below: "Axes",
    names: list[str],
    picture: np.ndarray,
    truth: int,
    classes: np.ndarray,
    likely: np.ndarray,
) -> None:
    """A picture with its class, over bars for what the network makes of it."""
    for axes in (above, below):
        axes.set_visible(True)
        bare(axes)
    above.imshow(picture)
    above.set_xlabel(short(names[truth], WORDS), fontsize=SMALL, weight="bold", color=INK, labelpad=2)
    colours = [RIGHT if kind == truth else LIGHT for kind in classes]
    below.barh(np.arange(len(classes)), likely, color=colours, height=0.82)
    below.set_xlim(0, 1)
    below.set_ylim(len(classes) - 0.4, -0.6)
    for place, (kind, share) in enumerate(zip(classes, likely, strict=True)):
        below.annotate(
            f"{short(names[kind], WORDS - 5)}  {percent(share)}",
            (0, place),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
            weight="bold" if kind == truth else "normal",
        ).set_in_layout(False)
    below.axvline(0, color=FAINT, linewidth=0.8)
