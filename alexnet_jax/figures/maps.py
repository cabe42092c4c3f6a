"""The activation maps of a picture, layer by layer and tower by tower."""

import math
from typing import TYPE_CHECKING

import numpy as np

from alexnet_jax.figures.style import LIGHT, SMALL, WIDTH, bare, head, percent, sheet
from alexnet_jax.learning.prediction import make_activation_step
from alexnet_jax.sharding.mesh import DATA
from alexnet_jax.sharding.rows import place_rows
from alexnet_jax.trained.opened import TrainedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAP, SIDE = 1, 10  # pixels between maps, which are made larger where they are smaller than that
LEAST = 16  # columns, of which those that are not needed stay empty


def activations(opened: TrainedRun, picture: np.ndarray) -> dict[str, np.ndarray]:
    """f32[towers, ...] of every layer, as it is before its pool, for the centre of a picture u8[S, S, 3]."""
    layers = tuple(opened.config.network.layers())
    count = opened.mesh.shape[DATA]
    pictures = np.repeat(picture[None], count, axis=0)  # one for each row of devices
    placed = place_rows(opened.mesh, np.arange(count), pictures, count)
    found = make_activation_step(opened.config, opened.mesh, layers)(opened.state, opened.pixels, placed)
    return {name: np.asarray(found[name])[:, 0] for name in layers}


def montage(maps: np.ndarray, columns: int) -> np.ndarray:
    """Maps [h, w, n] side by side, line by line; nan between and after them."""
    scale = -(-SIDE // maps.shape[0])
    maps = maps.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width, count = maps.shape
    lines = -(-count // columns)
    sheet = np.full((lines * (height + GAP) - GAP, columns * (width + GAP) - GAP), np.nan)
    for i in range(count):
        top, left = i // columns * (height + GAP), i % columns * (width + GAP)
        sheet[top : top + height, left : left + width] = maps[..., i]
    return sheet


def maps(opened: TrainedRun, row: int = 0) -> "Figure":
    """Draws the maps of a validation picture; dark is strong, and each layer has its own scale."""
    picture, what = opened.picture(row)
    found = activations(opened, picture)
    towers = opened.config.network.towers
    across = {name: _columns(x.shape[-1], towers) for name, x in found.items()}
    sheets = {name: [montage(_as_maps(tower), across[name]) for tower in x] for name, x in found.items()}
    tall = [(WIDTH - 0.6) / towers * tiles[0].shape[0] / tiles[0].shape[1] for tiles in sheets.values()]
    figure = sheet(1.5 + sum(tall) + 0.42 * len(tall))
    top, below = figure.subfigures(2, 1, height_ratios=[1.4, sum(tall) + 0.42 * len(tall)])
    axes = top.add_subplot()
    bare(axes)
    axes.imshow(picture)
    grid = below.subplots(len(found), towers, squeeze=False, height_ratios=[0.3 + height for height in tall])
    for (name, x), line in zip(found.items(), grid, strict=True):
        for t, axes in enumerate(line):
            _draw(axes, sheets[name][t], float(np.abs(x).max()))
            axes.set_title(_words(name, x[t], t), fontsize=SMALL, loc="left", pad=3)
    head(figure, f"{what}, and what every layer makes of it. Dark: a strong positive response.")
    return figure


def _as_maps(tower: np.ndarray) -> np.ndarray:
    """[h, w, maps]; units are maps of one pixel."""
    return tower if tower.ndim == 3 else tower[None, None]


def _columns(count: int, towers: int) -> int:
    """Wide rather than high."""
    return max(LEAST, math.ceil(math.sqrt(count * 10 / towers)))


def _draw(axes: "Axes", tiles: np.ndarray, largest: float) -> None:
    bare(axes)
    import matplotlib

    greys = matplotlib.colormaps["Greys"].with_extremes(bad=LIGHT)
    axes.imshow(tiles, cmap=greys, vmin=0, vmax=largest or 1, interpolation="nearest")


def _words(name: str, tower: np.ndarray, t: int) -> str:
    """A layer's name and its size in a tower."""
    size = f"{tower.shape[-1]} maps, {tower.shape[0]} x {tower.shape[1]}" if tower.ndim == 3 else ""
    return f"{name}, tower {t}: {size or f'{len(tower)} units'}, {percent(np.mean(tower > 0))} above 0"
