"""Figure 4, left, and the confusions, against the network's own answers."""

import numpy as np
import pytest

from alexnet_jax.figures.answers import SHOWN, answers, chosen, likeliest
from alexnet_jax.figures.confusion import confusion, count_pairs, mistakes
from alexnet_jax.trained.opened import TrainedRun


def test_likeliest() -> None:
    shares = np.array([[0.1, 0.2, 0.5, 0.2], [0.25, 0.25, 0.25, 0.25]])
    classes, likely = likeliest(np.log(shares), 3)
    assert classes.tolist() == [[2, 1, 3], [0, 1, 2]]
    np.testing.assert_allclose(likely, [[0.5, 0.2, 0.2], [0.25] * 3])


def test_chosen() -> None:
    """The first that are right, then the first that are wrong."""
    given = np.log(np.array([[0.9, 0.1], [0.1, 0.9], [0.8, 0.2], [0.7, 0.3]]))
    assert chosen(given, np.array([0, 0, 1, 0]), 1).tolist() == [0, 1]
    assert chosen(given, np.array([0, 1, 0, 0]), 2).tolist() == [0, 1]


def test_bars(opened: TrainedRun) -> None:
    """Under each picture five bars as long as the probabilities, the right class in a colour of its own."""
    given, labels = opened.answers
    figure = answers(opened)
    rows, names = chosen(given, labels), opened.packed.class_names
    pictures, truth = opened.packed.read("validation", rows)
    above = [axes for axes in figure.axes if axes.images and axes.get_visible()]
    below = [axes for axes in figure.axes if axes.patches and axes.get_visible()]
    assert len(above) == len(below) == len(rows) == 2 * SHOWN
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(above[i].images[0].get_array(), pictures[i])
        assert above[i].get_xlabel() == names[truth[i]]
        shares = np.exp(np.float64(given[row]))
        order = np.argsort(-shares, kind="stable")[:5]
        lengths = [bar.get_width() for bar in below[i].patches]
        np.testing.assert_allclose(lengths, shares[order], rtol=1e-6)
        assert [text.get_text().split("  ")[0] for text in below[i].texts] == [names[kind] for kind in order]
        colours = {kind: bar.get_facecolor() for kind, bar in zip(order, below[i].patches, strict=True)}
        others = {colour for kind, colour in colours.items() if kind != truth[i]}
        assert len(others) == 1 and colours.get(truth[i]) not in others
    assert all(given[row].argmax() == labels[row] for row in rows[:SHOWN])
    assert not any(given[row].argmax() == labels[row] for row in rows[SHOWN:])


def test_the_table() -> None:
    shares = [[0.6, 0.3, 0.1], [0.3, 0.6, 0.1], [0.1, 0.3, 0.6], [0.1, 0.6, 0.3], [0.6, 0.3, 0.1]]
    given = np.log(np.array(shares))
    counts = count_pairs(given, np.array([0, 0, 2, 2, 2]))
    assert counts.tolist() == [[1, 1, 0], [0, 0, 0], [1, 1, 1]]
    assert mistakes(counts) == [(0, 1, 1), (2, 0, 1), (2, 1, 1)]
    assert mistakes(counts, 2) == [(0, 1, 1), (2, 0, 1)]


def test_confusions(opened: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every number of the table stands where it belongs; with many classes the worst are listed."""
    given, labels = opened.answers
    (axes,) = confusion(opened).axes
    counts, found = count_pairs(given, labels), np.zeros((10, 10), int)
    for text in axes.texts:
        column, line = text.get_position()
        found[line, column] = int(text.get_text().replace(",", ""))
    np.testing.assert_array_equal(found, counts)
    np.testing.assert_allclose(axes.images[0].get_array(), counts / counts.sum(axis=1, keepdims=True))
    monkeypatch.setattr("alexnet_jax.figures.confusion.MOST", 5)
    (axes,) = confusion(opened).axes
    listed, names = mistakes(counts), opened.packed.class_names
    assert [bar.get_width() for bar in axes.patches] == [count for *_, count in listed]
    words = [label.get_text() for label in axes.get_yticklabels()]
    assert words == [f"{names[i]}, taken for {names[j]}" for i, j, _ in listed]
