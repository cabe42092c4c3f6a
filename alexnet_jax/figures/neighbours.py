"""Figure 4, right: pictures whose vectors in the last hidden layer lie nearest to a picture's.

Exact, by Euclidean distance over a whole split, of which only the nearest so far are kept.
"""

from typing import TYPE_CHECKING

import numpy as np

from alexnet_jax.figures.style import INK, SMALL, bare, head, percent, sheet, short
from alexnet_jax.trained.features import last_hidden, make_features, split_features
from alexnet_jax.trained.opened import TrainedRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUERIES, NEAREST = 5, 6  # as in the paper
WORDS = 13  # letters below a picture
BLOCK = 1 << 20  # numbers that are compared at once


class Nearest:
    """The nearest `count` of all vectors that were shown, to each of `queries` [q, units]."""

    def __init__(self, queries: np.ndarray, count: int):
        self.queries, self.count, self.shown = queries.astype(np.float64), count, 0
        self.distances = np.empty((len(queries), 0))
        self.places = np.empty((len(queries), 0), int)  # counted from the first vector that was shown

    def show(self, vectors: np.ndarray) -> None:
        """More vectors [n, units]; of two that are as far the one that came first counts as nearer."""
        step = max(1, BLOCK // vectors.shape[1])
        for first in range(0, len(vectors), step):
            block = vectors[first : first + step].astype(np.float64)
            far = np.stack([np.sqrt(np.square(block - query).sum(axis=1)) for query in self.queries])
            new = np.broadcast_to(np.arange(len(block)) + self.shown, far.shape)
            distances = np.concatenate([self.distances, far], axis=1)
            places = np.concatenate([self.places, new], axis=1)
            order = np.argsort(distances, axis=1, kind="stable")[:, : self.count]
            self.distances = np.take_along_axis(distances, order, axis=1)
            self.places = np.take_along_axis(places, order, axis=1)
            self.shown += len(block)


def find_nearest(opened: TrainedRun, rows: np.ndarray, count: int, split: str = "train") -> Nearest:
    """The pictures of a split that are nearest to rows of the validation split."""
    stage = last_hidden(opened.config.network)
    pictures, _ = opened.packed.read("validation", rows)
    vectors = make_features(opened, stage, len(rows))(pictures)
    nearest = Nearest(vectors.reshape(len(rows), -1), count)
    for made, _ in split_features(opened, stage, split):
        nearest.show(made.reshape(len(made), -1))
    return nearest


def neighbours(opened: TrainedRun, rows: np.ndarray | None = None) -> "Figure":
    """Rows of the validation split, the first of as many classes as there are if none are given."""
    rows = one_of_each(opened) if rows is None else rows
    nearest = find_nearest(opened, rows, NEAREST)
    asked, truth = opened.packed.read("validation", rows)
    found = [opened.packed.read("train", places) for places in nearest.places]
    names, stage = opened.packed.class_names, last_hidden(opened.config.network)
    figure = sheet(0.35 + 1.28 * len(rows))
    axes = figure.subplots(len(rows), 1 + NEAREST, squeeze=False, width_ratios=[1.15] + [1] * NEAREST)
    for line, picture, label, (pictures, labels), far in zip(
        axes, asked, truth, found, nearest.distances, strict=True
    ):
        everything = [(picture, label, None), *zip(pictures, labels, far, strict=True)]
        for place, (shown, kind, distance) in zip(line, everything, strict=False):
            bare(place)
            place.imshow(shown)
            name = short(names[kind], WORDS)
            words = name if distance is None else f"{name}\n{distance:#.3g}"
            weight = "bold" if kind == label else "normal"
            place.set_xlabel(words, fontsize=SMALL, color=INK, weight=weight, labelpad=2)
        for place in line[1 + len(labels) :]:
            place.set_visible(False)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)
    alike = np.concatenate([labels == label for label, (_, labels) in zip(truth, found, strict=True)])
    head(
        figure,
        "First column: validation pictures, the first of a class each. Beside them the "
        f"{NEAREST} training pictures whose {stage} is nearest, with their distances; "
        f"{percent(alike.mean())} of them are of the same class (bold).",
    )
    return figure


def one_of_each(opened: TrainedRun) -> np.ndarray:
    """The first validation picture of each of the first few classes."""
    labels = opened.answers[1]
    first = [np.flatnonzero(labels == kind)[:1] for kind in range(opened.config.network.classes)]
    return np.concatenate(first)[:QUERIES]
