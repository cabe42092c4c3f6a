"""Figure 3: every kernel is where it should be, and colour shares are those of kernels with known ones."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from alexnet_jax.config.fields import Config
from alexnet_jax.errors import RefusedError
from alexnet_jax.figures.kernels import colour_shares, first_kernels, kernels, mosaic, specialisation
from tests.figures.untrained import untrained

GREY, RED, CHROMA = (1, 1, 1), (1, 0, 0), (1, -1, 0)


def by_hand(*colours: tuple[float, ...]) -> np.ndarray:
    """Kernels [1, 5, 5, 3, n] that are one colour, times another number at every place."""
    places = np.random.default_rng(0).normal(size=(5, 5))
    return np.stack([places[..., None] * np.array(colour) for colour in colours], axis=-1)[None]


def test_known_shares() -> None:
    """Grey has none, chroma has all, red two thirds, and what is both by halves has a half."""
    both = np.array(GREY) / np.sqrt(3) + np.array(CHROMA) / np.sqrt(2)
    found = by_hand(GREY, (-7, -7, -7), CHROMA, (0, 0.1, -0.1), RED, both, (0, 0, 0))
    np.testing.assert_allclose(colour_shares(found), [[0, 0, 1, 1, 2 / 3, 0.5, 0]], atol=1e-12)


def test_a_flat_kernel_has_a_colour() -> None:
    """Energy is taken about zero: a flat red kernel is no less red than a striped one."""
    flat = np.broadcast_to(np.array(RED, float)[None, None, None, :, None], (1, 4, 4, 3, 1))
    np.testing.assert_allclose(colour_shares(flat), [[2 / 3]])


def test_specialisation_of_towers() -> None:
    """The mean over a tower's kernels; of random weights 2/3."""
    pair = np.concatenate([by_hand(GREY, GREY, GREY, RED), by_hand(CHROMA, CHROMA, RED, RED)])
    np.testing.assert_allclose(specialisation(pair), [1 / 6, 5 / 6])
    random = np.random.default_rng(1).normal(size=(2, 11, 11, 3, 400))
    np.testing.assert_allclose(specialisation(random), 2 / 3, atol=0.01)


@pytest.mark.parametrize(("towers", "width"), [(1, 8), (2, 8), (2, 96), (4, 100)])
def test_every_kernel_is_drawn(towers: int, width: int, narrow: Config, tmp_path: Path) -> None:
    """Pixel for pixel between its least and greatest weight, row by row, towers one above the other."""
    network = dataclasses.replace(
        narrow.network, towers=towers, conv1=dataclasses.replace(narrow.network.conv1, width=width)
    )
    opened = untrained(dataclasses.replace(narrow, network=network), tmp_path, tower=min(towers, 2))
    figure = kernels(opened)
    weights = np.asarray(opened.state.params["conv1"]["kernel"], np.float64)
    *pictures, strip = figure.axes
    assert [axes.get_ylabel() for axes in pictures] == [f"tower {tower}" for tower in range(towers)]
    count = width // towers
    rows = -(-count // 16)
    columns = -(-count // rows)
    for tower, axes in enumerate(pictures):
        shown = np.asarray(axes.images[0].get_array())
        assert shown.shape == (12 * rows - 1, 12 * columns - 1, 3)
        inside = np.zeros(shown.shape[:2], bool)
        for i in range(count):
            kernel = weights[tower, ..., i]
            top, left = 12 * (i // columns), 12 * (i % columns)
            wanted = (kernel - kernel.min()) / (kernel.max() - kernel.min())
            np.testing.assert_allclose(shown[top : top + 11, left : left + 11], wanted, atol=1e-6)
            inside[top : top + 11, left : left + 11] = True
        assert (shown[~inside] == 1).all()  # paper white
    shares = colour_shares(weights)
    dots = [line.get_xdata() for line in strip.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(dots, shares, atol=1e-6)
    words = [label.get_text() for label in strip.get_yticklabels()]
    assert words == [f"tower {tower}: {own.mean():.2f}" for tower, own in enumerate(shares)]
    title = " ".join(figure.get_suptitle().split())
    assert f"{count} kernels of 11 x 11 x 3" in title
    means = ", ".join(f"{own.mean():.2f}" for own in shares)
    assert title.endswith(f"Colour shares by tower: {means}")
    figure.draw_without_rendering()
    names = [axes.yaxis.label.get_window_extent() for axes in pictures]
    names += [figure._suptitle.get_window_extent(), strip.xaxis.label.get_window_extent()]
    names += [label.get_window_extent() for label in strip.get_yticklabels()]
    wide, high = figure.canvas.get_width_height()
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= wide and box.y1 <= high for box in names)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(names, 2))


def test_a_flat_kernel_is_middle_grey() -> None:
    """And one that is grey has no colour in the picture."""
    flat = np.full((3, 3, 3, 1), 0.02)
    assert (mosaic(flat) == 0.5).all()
    grey = by_hand(GREY)[0]
    shown = mosaic(grey)
    assert (shown.min(), shown.max()) == (0, 1)
    np.testing.assert_allclose(shown, shown[..., :1].repeat(3, axis=-1))


def test_kernels_of_every_place_are_refused(narrow: Config, tmp_path: Path) -> None:
    network = dataclasses.replace(narrow.network, unshared=("conv1",))
    opened = untrained(narrow, tmp_path)
    with pytest.raises(RefusedError, match="conv1 has kernels of its own at every place"):
        first_kernels(dataclasses.replace(opened, config=dataclasses.replace(narrow, network=network)))
