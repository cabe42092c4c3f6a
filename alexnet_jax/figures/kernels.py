"""Figure 3: the kernels of conv1, tower by tower, and how much of each is colour.

The paper says of its own (section 6.1, Figure 3) that GPU 1's are largely colour-agnostic and GPU 2's largely
colour-specific, that this happens in every run, and that it does not depend on how the weights began. It
gives no measure of it; this one is ours.
"""

from typing import TYPE_CHECKING

import numpy as np

from alexnet_jax.errors import RefusedError
from alexnet_jax.figures.style import COLOURS, FAINT, INK, LIGHT, SMALL, USUAL, bare, head, plain, sheet
from alexnet_jax.trained.opened import TrainedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 16  # the paper's 48 of a GPU are three rows
CHANCE = 2 / 3  # what kernels drawn at random have on average: two of three directions are off the grey axis
GAP = 1  # pixels of white between kernels


def kernels(opened: TrainedRun) -> "Figure":
    """Every tower's kernels, each scaled by itself; below, the colour share of each, and their mean."""
    found = first_kernels(opened)
    towers, size, _, _, count = found.shape
    rows = len(mosaic(found[0])) / (size + GAP)
    columns = -(-count // rows)
    each = 5.9 / columns  # inches
    figure = sheet(towers * (rows * each + 0.2) + 0.36 * towers + 1.2)
    heights = [*[rows * each] * towers, 0.3 * towers + 0.15]
    grid = figure.subplots(towers + 1, 1, gridspec_kw={"height_ratios": heights})
    for tower, axes in enumerate(grid[:-1]):
        axes.imshow(mosaic(found[tower]), interpolation="nearest")
        bare(axes)
        axes.set_ylabel(f"tower {tower}", fontsize=USUAL, rotation=0, ha="right", va="center")
    _draw_shares(grid[-1], colour_shares(found))
    what = f"{count} kernels of {size} x {size} x 3"
    each_has = f"{what} in each of {towers} towers" if towers > 1 else what
    means = ", ".join(f"{share:.2f}" for share in specialisation(found))
    head(
        figure,
        f"conv1 at step {opened.step:,}: {each_has}, each from its least weight to its greatest. "
        f"Colour shares by tower: {means}",
    )
    return figure


def first_kernels(opened: TrainedRun) -> np.ndarray:
    """conv1's kernels f32[towers, size, size, 3, kernels]."""
    if "conv1" in opened.config.network.unshared:
        raise RefusedError("conv1 has kernels of its own at every place (network.unshared): too many to draw")
    return np.asarray(opened.state.params["conv1"]["kernel"])


def colour_shares(kernels: np.ndarray) -> np.ndarray:
    """The share of each kernel's energy that is off the grey axis, f64[towers, kernels].

    A kernel's weights at a place are a point (r, g, b). Their energy, the sum of squares over all places, is
    split by the axis of greys (1, 1, 1) / sqrt(3): along it lies (r + g + b)^2 / 3. The share of the rest is
    0 for a grey kernel and 1 for one of pure chroma, where r + g + b = 0 everywhere. It is taken about zero
    and not about the kernel's mean: a flat red kernel sees colour and nothing else. Of zeros it is 0.
    """
    wide = np.asarray(kernels, np.float64)
    energy = np.sum(wide**2, axis=(1, 2, 3))
    grey = np.sum(np.sum(wide, axis=3) ** 2, axis=(1, 2)) / 3
    return np.where(energy > 0, np.maximum(energy - grey, 0) / np.where(energy > 0, energy, 1), 0)


def specialisation(kernels: np.ndarray) -> np.ndarray:
    """The share of colour in each tower, f64[towers]: the mean over its kernels."""
    return np.mean(colour_shares(kernels), axis=1)


def scaled(kernels: np.ndarray) -> np.ndarray:
    """Kernels [..., size, size, 3, kernels] between 0 and 1, each by its least and largest weight.

    One scale for its three colours, so that grey stays grey; a flat kernel is middle grey.
    """
    axes = (-4, -3, -2)
    least, most = (f(kernels, axis=axes, keepdims=True) for f in (np.min, np.max))
    span = np.where(most > least, most - least, 1)
    return np.where(most > least, (kernels - least) / span, 0.5)


def mosaic(kernels: np.ndarray) -> np.ndarray:
    """One picture of kernels [size, size, 3, kernels], row by row, white between them."""
    size, count = kernels.shape[0], kernels.shape[-1]
    rows = -(-count // COLUMNS)
    columns = -(-count // rows)
    pitch = size + GAP
    picture = np.ones((rows * pitch - GAP, columns * pitch - GAP, 3))
    for number, kernel in enumerate(np.moveaxis(scaled(kernels), -1, 0)):
        top, left = pitch * (number // columns), pitch * (number % columns)
        picture[top : top + size, left : left + size] = kernel
    return picture


def _draw_shares(axes: "Axes", shares: np.ndarray) -> None:
    """A line of dots for each tower, a bar at their mean, and what chance gives."""
    (towers, count), means = shares.shape, shares.mean(axis=1)
    lift = 0.22 * np.sin(2.4 * np.arange(count))  # so that dots of one share do not hide each other
    axes.axvline(CHANCE, color=LIGHT, linewidth=1, zorder=0)
    axes.annotate(
        "as drawn at random", (CHANCE, 1), xycoords=("data", "axes fraction"), xytext=(0, 2), **_above()
    )
    for tower, own in enumerate(shares):
        axes.plot(own, tower + lift, "o", color=COLOURS[0], markersize=3.5, alpha=0.6, markeredgewidth=0)
        axes.plot([means[tower]] * 2, [tower - 0.38, tower + 0.38], color=INK, linewidth=2)
    axes.set_yticks(range(towers), [f"tower {tower}: {mean:.2f}" for tower, mean in enumerate(means)])
    axes.set_ylim(towers - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel(
        "colour share of each kernel (0 is grey, 1 is pure chroma); bars and numbers are means",
        fontsize=SMALL,
    )
    plain(axes)
    axes.tick_params(axis="y", length=0, labelsize=USUAL)


def _above() -> dict:
    """Small words over a place."""
    words = {"textcoords": "offset points", "ha": "center", "va": "bottom"}
    return words | {"fontsize": SMALL, "color": FAINT}
