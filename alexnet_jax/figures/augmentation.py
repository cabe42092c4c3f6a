"""Section 4.1: one picture as the network sees it while it trains, and the colours that noise gives it.

Everything is drawn by `learning/augment.py`, with the run's own keys and the statistics of its training
pictures. What the network sees has no mean; here it is added back, for the eye.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax import numpy as jnp

from alexnet_jax.config.fields import Config
from alexnet_jax.errors import RefusedError
from alexnet_jax.figures.style import COLOURS, FAINT, INK, SMALL, USUAL, bare, head, plain, sheet
from alexnet_jax.learning.augment import Colours, Pixels, draw_colours, random_view
from alexnet_jax.learning.loss import example_keys
from alexnet_jax.trained.opened import TrainedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DRAWS, COLUMNS = 32, 8
DEVIATIONS = (-3, -2, -1, 0, 1, 2, 3)


@dataclass(frozen=True)
class RandomViews:
    """Several random views of one picture."""

    pictures: np.ndarray  # f32[draws, size, size, 3], the mean added back
    corners: np.ndarray  # i32[draws, 2]: the first row and the first column that each takes
    mirrored: np.ndarray  # bool[draws]


def augmentations(opened: TrainedRun, row: int = 0) -> "Figure":
    """The picture and the places of its crops; below, the draws."""
    picture, what = opened.picture(row)
    views = draw_views(opened.config, opened.pixels, picture, opened.step)
    figure = sheet(6.3)
    above, below = figure.subfigures(2, 1, height_ratios=(1.6, 4.3))
    original, places = above.subplots(1, 2, width_ratios=(1.1, 4))
    original.imshow(picture)
    bare(original)
    _draw_places(places, views, len(picture) - opened.config.network.image_size)
    for axes, view, corner, mirrored in zip(
        below.subplots(DRAWS // COLUMNS, COLUMNS).flat,
        views.pictures,
        views.corners,
        views.mirrored,
        strict=True,
    ):
        axes.imshow(np.clip(np.round(view), 0, 255).astype(np.uint8))
        bare(axes)
        axes.set_title(f"{corner[0]}, {corner[1]}{' m' if mirrored else ''}", fontsize=SMALL, pad=2)
    head(figure, f"{what}, and {DRAWS} draws of it as the network sees them in training, the mean added back")
    return figure


def draw_views(config: Config, pixels: Pixels, picture: np.ndarray, step: int) -> RandomViews:
    """Draws the views of a training step whose batch is this picture alone.

    Each draw has a key of its own, also where a run lets pictures share theirs. Where a crop was taken is
    seen by drawing it from a picture of coordinates: the draw itself is what tells.
    """
    augment, size = config.augment, config.network.image_size
    view_keys, colour_keys, _ = jnp.unstack(example_keys(config.seed, jnp.asarray(step), DRAWS), axis=1)
    noise = draw_colours(colour_keys, pixels, jnp.ones(()), augment)
    none = Colours(jnp.zeros((DRAWS, 3)), jnp.ones(DRAWS))
    look = jax.vmap(partial(random_view, size=size, config=augment), in_axes=(None, 0, 0, None))
    seen = look(jnp.asarray(picture), view_keys, noise, pixels)
    mean = -look(jnp.zeros(picture.shape), view_keys, none, pixels)
    side = len(picture)
    coordinates = jnp.stack([*jnp.indices((side, side)), jnp.zeros((side, side), int)], axis=-1)
    nothing = Pixels(jnp.zeros(picture.shape), jnp.zeros((3, 3)))
    found = np.asarray(look(coordinates, view_keys, none, nothing))[..., :2].astype(int)
    mirrored = found[:, 0, 0, 1] > found[:, 0, -1, 1]
    return RandomViews(np.asarray(seen + mean), found.min(axis=(1, 2)), mirrored)


def colour_noise(opened: TrainedRun, row: int = 0) -> "Figure":
    """The picture moved along each principal component, from the one that varies most."""
    if not opened.config.augment.colour_noise:
        raise RefusedError("this run has no colour noise (augment.colour_noise=0)")
    picture, what = opened.picture(row)
    components = components_of(opened.pixels)
    figure = sheet(3.1)
    grid = figure.subplots(len(components), len(DEVIATIONS))
    for line, component, pictures in zip(grid, components, moved(picture, components), strict=True):
        for axes, shown in zip(line, pictures, strict=True):
            axes.imshow(shown)
            bare(axes)
        line[0].set_ylabel(in_words(component), fontsize=SMALL, rotation=0, ha="right", va="center")
    for axes, times in zip(grid[0], DEVIATIONS, strict=True):
        axes.set_title(f"{times:+d}" if times else "0", fontsize=USUAL)
    head(figure, f"{what}, moved along each principal component by so many deviations of the colour noise")
    return figure


def components_of(pixels: Pixels) -> np.ndarray:
    """The principal components times the deviation of the noise along them, f64[3, 3], the longest first.

    Which way one points is arbitrary; here that is where it is brighter.
    """
    components = np.asarray(pixels.colour_noise, np.float64).T[::-1]
    return np.where(components.sum(axis=1, keepdims=True) < 0, -1, 1) * components


def moved(picture: np.ndarray, components: np.ndarray) -> np.ndarray:
    """u8[components, deviations, S, S, 3]: a picture plus multiples of each component, from 0 to 255."""
    times = np.array(DEVIATIONS, np.float64)[:, None, None, None]
    return np.stack(
        [
            np.clip(np.round(picture + times * c), 0, 255).astype(np.uint8)
            for c in components.astype(np.float64)
        ]
    )


def in_words(component: np.ndarray) -> str:
    """A component's deviation on the scale of 0 to 255, and the direction in which it lies."""
    length = float(np.linalg.norm(component))
    direction = component / length if length else component
    return f"deviation {length:.3g}\n" + "  ".join(
        f"{name} {part:+.2f}" for name, part in zip("RGB", direction, strict=True)
    )


def _draw_places(axes: "Axes", views: RandomViews, border: int) -> None:
    """A dot at the first row and column of every crop, filled where it is mirrored."""
    rows, columns = views.corners.T
    for mirrored, face, size, words in (
        (False, "white", 7, "as it is"),
        (True, COLOURS[0], 3.5, "mirrored (m)"),
    ):
        own = views.mirrored == mirrored
        look = {"color": INK, "markerfacecolor": face, "markersize": size, "clip_on": False}
        axes.plot(columns[own], rows[own], "o", label=words, **look)
    axes.set_xlim(-0.5, border + 0.5)
    axes.set_ylim(border + 0.5, -0.5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("first column", fontsize=SMALL)
    axes.set_ylabel("first row", fontsize=SMALL)
    axes.set_title("where crops begin: row, column", loc="left", fontsize=USUAL, color=FAINT)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=SMALL)
    plain(axes)
