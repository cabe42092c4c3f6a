"""Confusions of classes: a table, or the commonest mistakes where there are many classes."""

from typing import TYPE_CHECKING

import numpy as np

from alexnet_jax.figures.style import COLOURS, FAINT, INK, SMALL, USUAL, head, plain, sheet
from alexnet_jax.trained.opened import TrainedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 30  # classes that a table is drawn for
LISTED = 20  # mistakes


def count_pairs(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Pictures i64[classes, classes] by their class and by the answer."""
    classes = log_probabilities.shape[1]
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, log_probabilities.argmax(axis=1)), 1)
    return counts


def mistakes(counts: np.ndarray, most: int = LISTED) -> list[tuple[int, int, int]]:
    """(class, answer, pictures) of the commonest wrong answers, of equal ones the first class."""
    wrong = counts - np.diag(counts.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [(int(i), int(j), int(wrong[i, j])) for i, j in pairs if wrong[i, j]]


def confusion(opened: TrainedRun) -> "Figure":
    """Draws the confusions of the validation split."""
    counts, names = count_pairs(*opened.answers), opened.packed.class_names
    total, right = counts.sum(), counts.trace()
    words = f"{right:,} of {total:,} validation pictures right"
    if len(names) <= MOST:
        figure = sheet(5.6)
        _draw_table(figure.add_subplot(), counts, names)
        head(figure, f"{words}; a line for each class, a column for each answer. Darker: more of the class.")
    else:
        listed = mistakes(counts)
        figure = sheet(0.8 + 0.24 * max(1, len(listed)))
        _draw_list(figure.add_subplot(), listed, names)
        head(figure, f"{words}; the commonest mistakes.")
    return figure


def _draw_table(axes: "Axes", counts: np.ndarray, names: list[str]) -> None:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Greys", vmin=0, vmax=1)
    size = USUAL if len(names) <= 12 else SMALL * 12 / len(names) + 2
    for (i, j), count in np.ndenumerate(counts):
        if count:
            dark = shares[i, j] > 0.5
            axes.text(
                j, i, f"{count:,}", ha="center", va="center", fontsize=size, color="white" if dark else INK
            )
    places = np.arange(len(names))
    axes.set_xticks(places, names, rotation=45, ha="right", fontsize=size)
    axes.set_yticks(places, names, fontsize=size)
    axes.set_xlabel("Answer", fontsize=USUAL)
    axes.set_ylabel("Class", fontsize=USUAL)
    axes.tick_params(length=0)
    axes.spines[:].set_color(FAINT)


def _draw_list(axes: "Axes", listed: list[tuple[int, int, int]], names: list[str]) -> None:
    places = np.arange(len(listed))
    axes.barh(places, [count for *_, count in listed], color=COLOURS[0], height=0.7)
    axes.set_yticks(places, [f"{names[i]}, taken for {names[j]}" for i, j, _ in listed], fontsize=SMALL)
    axes.invert_yaxis()
    axes.set_xlabel("Pictures", fontsize=USUAL)
    axes.xaxis.get_major_locator().set_params(integer=True)
    plain(axes)
