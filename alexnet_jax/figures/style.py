"""The style of figures: readable in print and at half their size, and without colour; nothing in vain."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet_jax.errors import RefusedError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, LIGHT = "black", "0.45", "0.8"  # words and lines, lesser ones, and what only helps to compare
# Okabe and Ito's, which people who see red and green alike can tell apart; each also has its own line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
LINES = ("-", (0, (5, 2)), (0, (1, 1.5)), "-.")
RIGHT = "#56B4E9"  # light enough for black words on it
SPELT = {"relu": "ReLU", "tanh": "tanh", "sigmoid": "sigmoid"}  # activations
LARGE, USUAL, SMALL = 12, 10, 8  # points
WIDTH = 7.0  # inches
LETTERS = 84  # that are sure to fit into it
PIXELS = 200  # an inch


def sheet(height: float, width: float = WIDTH) -> "Figure":
    """An empty figure, drawn by no window system; a notebook shows it."""
    from matplotlib.figure import Figure  # takes a second: not before what can be refused without it

    return Figure(figsize=(width, height), layout="constrained")


def plain(axes: "Axes") -> None:
    """Two thin axes."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(color=FAINT, labelsize=SMALL)


def bare(axes: "Axes") -> None:
    """Only what is in it."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def head(figure: "Figure", words: str) -> None:
    """Writes a line or two above a figure; long ones are wrapped."""
    lines = [textwrap.fill(line, LETTERS) for line in words.splitlines()]
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=USUAL)


def percent(share: float) -> str:
    """A percentage for the text of a figure."""
    return "< 0.1 %" if 0 < share < 0.0005 else "> 99.9 %" if 0.9995 <= share < 1 else f"{100 * share:.1f} %"


def short(name: str, most: int) -> str:
    """The name of a class in so many letters; of several names the first."""
    first = name.partition(",")[0]
    return first if len(first) <= most else f"{first[: most - 1]}…"


def save(figure: "Figure", path: Path) -> None:
    """Writes a figure, in the format of its name; its folder is made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=PIXELS)
    except OSError as error:
        raise RefusedError(f"cannot write {path}: {error.strerror or error}") from error
