"""The mesh of a run: which device holds which towers, and which rows of a batch; and who talks to whom.

Read from the shardings of the run's own parameters and of a batch, not from the rule that makes them.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
from jax.sharding import NamedSharding

from alexnet_jax.config.fields import NetworkConfig
from alexnet_jax.figures.style import COLOURS, INK, LINES, SMALL, USUAL, WIDTH, bare, head, sheet
from alexnet_jax.network.shapes import SCORES
from alexnet_jax.sharding.mesh import DATA, ROWS, TOWER, shard
from alexnet_jax.sharding.rows import check_batch
from alexnet_jax.trained.opened import TrainedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ROWS = 8  # of devices; of more, those in the middle are left out
WIDEST, HEIGHT, ACROSS, DOWN = 3.2, 0.72, 0.36, 0.26  # of a device's box and between boxes, in inches
LEGEND = 0.24  # inches a line
ALONG = {  # who talks
    TOWER: {"color": COLOURS[1], "linewidth": 3.0, "linestyle": LINES[0]},
    DATA: {"color": COLOURS[0], "linewidth": 1.2, "linestyle": LINES[0]},
}


@dataclass(frozen=True)
class Holding:
    """The towers and rows on the device at (row, column) of the mesh."""

    row: int
    column: int
    device: str
    towers: range
    pictures: range  # of a batch
    parameters: int


def mesh(opened: TrainedRun) -> "Figure":
    """A box for each device, and lines through those that talk to each other in a step."""
    data, tower = opened.mesh.devices.shape
    shown = list(range(data)) if data <= MOST_ROWS else [*range(MOST_ROWS - 2), data - 1]
    left_out = data - len(shown)
    heights = {row: (len(shown) - 1 - i) * (HEIGHT + DOWN) for i, row in enumerate(shown)}
    if left_out:
        heights[data - 1] -= 2 * DOWN
    words = {TOWER: _crossings(opened.config.network)} if tower > 1 else {}
    words |= {DATA: f"along {DATA}: the sum of the gradients"} if data > 1 else {}
    lowest, top = heights[data - 1], heights[0] + HEIGHT
    bottom = lowest - LEGEND * (len(words) + 0.2)
    figure = sheet(top - bottom + 0.45)
    axes = figure.add_subplot()
    axes.set_xlim(-0.03, WIDTH - 0.1)
    axes.set_ylim(bottom, top + 0.03)
    axes.set_aspect("equal")
    bare(axes)
    each = min(WIDEST, (WIDTH - 0.15 - ACROSS * (tower - 1)) / tower)
    _draw_talk(axes, heights, each, (data, tower))
    for holding in holdings(opened):
        if holding.row in heights:
            _draw_device(axes, holding, heights[holding.row], each)
    for number, (axis, text) in enumerate(words.items(), 1):
        axes.plot([0, 0.5], [lowest - LEGEND * number] * 2, **ALONG[axis])
        axes.text(0.6, lowest - LEGEND * number, text, va="center", fontsize=SMALL)
    if left_out:
        axes.text(each / 2 + 0.1, lowest + HEIGHT + 1.5 * DOWN, f"{left_out:,} rows more", va="center")
    head(figure, f"{data} x {tower} devices ({DATA} x {TOWER}), and what each of them holds")
    return figure


def holdings(opened: TrainedRun) -> list[Holding]:
    """The holdings of each device, row by row of the mesh."""
    size, leaves = opened.config.train.batch_size, jax.tree.leaves(opened.state.params)
    check_batch(opened.mesh.shape[DATA], "train.batch_size", size)
    pictures = _along_first(shard(opened.mesh, ROWS), (size,))
    towers = _along_first(leaves[0].sharding, leaves[0].shape)
    parameters = sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves)
    return [
        Holding(row, column, f"{device.platform}:{device.id}", towers[device], pictures[device], parameters)
        for row, devices in enumerate(opened.mesh.devices)
        for column, device in enumerate(devices)
    ]


def _along_first(sharding: NamedSharding, shape: tuple[int, ...]) -> dict[jax.Device, range]:
    """The part of an array's first axis that each device holds."""
    found = sharding.devices_indices_map(shape)
    return {device: range(shape[0])[index[0]] for device, index in found.items()}


def _crossings(network: NetworkConfig) -> str:
    return f"along {TOWER}: crossings, at {', '.join((*network.crossings, SCORES))}"


def part_words(name: str, part: range) -> str:
    """A part in words: tower 0, or towers 0-1."""
    return f"{name} {part[0]:,}" if len(part) == 1 else f"{name}s {part[0]:,}-{part[-1]:,}"


def _draw_device(axes: "Axes", holding: Holding, height: float, width: float) -> None:
    """A box with what the device holds."""
    from matplotlib.patches import Rectangle

    left = holding.column * (width + ACROSS)
    axes.add_patch(Rectangle((left, height), width, HEIGHT, facecolor="white", edgecolor=INK, linewidth=1))
    lines = (
        part_words("tower", holding.towers),
        part_words("picture", holding.pictures),
        f"{holding.parameters:,} parameters",
    )
    middle = left + width / 2
    axes.text(middle, height + HEIGHT - 0.04, holding.device, ha="center", va="top", fontsize=USUAL)
    axes.text(middle, height + 0.04, "\n".join(lines), ha="center", va="bottom", fontsize=SMALL)


def _draw_talk(axes: "Axes", heights: dict[int, float], width: float, shape: tuple[int, int]) -> None:
    """Behind the boxes: a line through each row, and one through each column."""
    data, tower = shape
    middles = [width / 2 + column * (width + ACROSS) for column in range(tower)]
    for height in heights.values() if tower > 1 else ():
        axes.plot([middles[0], middles[-1]], [height + HEIGHT / 2] * 2, zorder=0, **ALONG[TOWER])
    for middle in middles if data > 1 else ():
        ends = [y + HEIGHT / 2 for y in (max(heights.values()), min(heights.values()))]
        axes.plot([middle, middle], ends, zorder=0, **ALONG[DATA])
