"""Figure 2: the towers, what each stage of them hands on, and where one reads what the other has made.

Everything is taken from the config of the network, as the network itself takes it.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alexnet_jax.config.fields import NetworkConfig, Operation
from alexnet_jax.figures.style import COLOURS, FAINT, INK, SMALL, SPELT, USUAL, bare, head, sheet
from alexnet_jax.network.shapes import POOL_OF, SCORES, layer_sizes, stage_names
from alexnet_jax.trained.opened import TrainedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IMAGES = "images"
MARGIN, WIDTH = 3.0, 3.9  # inches: the words on the left, and the towers
HEIGHT, STEP, CROSSING = 0.27, 0.42, 0.62  # of a box, and from one to the next, further where towers meet


@dataclass(frozen=True)
class Stage:
    """The output of a layer in one tower; pictures and scores are of all (tower -1)."""

    name: str
    tower: int
    shape: tuple[int, ...]  # of one picture: side, side, maps; or units
    kernel: tuple[int, ...] = ()  # the shape of its weights, if it has any


@dataclass(frozen=True)
class Line:
    """A stage reads another; `crossing` if it is one at which towers meet."""

    start: tuple[str, int]
    end: tuple[str, int]
    crossing: bool


def towers(opened: TrainedRun) -> "Figure":
    """The network of a run."""
    return draw_towers(opened.config.network)


def draw_towers(network: NetworkConfig) -> "Figure":
    """A row for each stage, a column for each tower, and lines to what each reads."""
    stages, lines = diagram(network)
    heights = _heights(network)
    total = heights[IMAGES] + HEIGHT
    figure = sheet(total + 0.4)
    axes = figure.add_subplot()
    axes.set_xlim(0, MARGIN + WIDTH + 0.02)
    axes.set_ylim(-0.02, total + 0.02)
    axes.set_aspect("equal")
    bare(axes)
    for line in lines:
        _draw_line(axes, line, network, heights)
    for stage in stages:
        _draw_box(axes, stage, network, heights[stage.name])
        if stage.tower < 1:  # all towers do the same
            middle = heights[stage.name] + HEIGHT / 2
            axes.text(0, middle, stage.name, va="center", fontsize=USUAL, color=INK)
            axes.text(0.62, middle, stage_words(network, stage), va="center", fontsize=SMALL, color=FAINT)
    _name_towers(axes, network, heights[IMAGES])
    head(figure, _verdict(network))
    return figure


def diagram(network: NetworkConfig) -> tuple[list[Stage], list[Line]]:
    """The stages by tower, from pictures to scores, and the lines between them."""
    count, names = network.towers, stage_names(network)
    stages, lines = [Stage(IMAGES, -1, (network.image_size, network.image_size, 3))], []
    before, own = IMAGES, stages[0].shape
    for name in names:
        crossing = name in network.crossings and count > 1
        read = own if not crossing else (*own[:-1], own[-1] * count)
        own, kernel = _made(network, name, read)
        stages += [Stage(name, tower, own, kernel) for tower in range(count)]
        for start, end in itertools.product(range(count), repeat=2):
            if start == end or crossing:
                lines.append(Line((before, -1 if before == IMAGES else start), (name, end), crossing))
        before = name
    stages.append(Stage(SCORES, -1, (network.classes,)))
    lines += [Line((before, tower), (SCORES, -1), count > 1) for tower in range(count)]
    return stages, lines


def _made(
    network: NetworkConfig, name: str, read: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The output shape of a stage in a tower, and the shape of its weights."""
    side, count = layer_sizes(network).get(name, 0), network.towers
    if name in POOL_OF.values():
        return (side, side, read[-1]), ()
    if name in network.convs():
        conv = network.convs()[name]
        kernel = (conv.size, conv.size, read[-1], conv.width // count)
        places = (side, side) if name in network.unshared else ()
        return (side, side, kernel[-1]), (*places, *kernel)
    hidden = network.hidden()
    units = hidden[name].width // count if name in hidden else -(-network.classes // count)
    return (units,), (math.prod(read), units)


def stage_words(network: NetworkConfig, stage: Stage) -> str:
    """A stage in words."""
    name, pool = stage.name, network.pool
    if name == IMAGES:
        return "less the mean"
    if name == SCORES:
        return f"of {network.classes:,} classes"
    for of, conv in network.convs().items():
        if conv.pool and name == POOL_OF[of]:
            kind = "max" if conv.pool == "max_pool" else "average"
            rest = _words(network, conv.then[conv.then.index(conv.pool) + 1 :])
            return ", ".join([f"{kind} {pool.window} x {pool.window}, stride {pool.stride}", *rest])
    if name in network.hidden() or name == "fc8":
        return ", ".join([f"{stage.kernel[0]:,} inputs", *_hidden(network, name)])
    conv = network.convs()[name]
    what = f"{conv.size} x {conv.size} x {stage.kernel[-2]} kernels"
    what += " per place" if name in network.unshared else ""
    stride = [f"stride {conv.stride}"] if conv.stride > 1 else []
    before = itertools.takewhile(lambda operation: operation != conv.pool, conv.then)
    return ", ".join([what, *stride, *_words(network, list(before))])


def _hidden(network: NetworkConfig, name: str) -> list[str]:
    """The operations after a fully connected layer."""
    if name == "fc8":
        return []
    dropout = [f"dropout {network.dropout:g}"] if network.dropout else []
    return [SPELT[network.activation], *dropout]


def _words(network: NetworkConfig, operations: Sequence[Operation]) -> list[str]:
    """The operations after a convolution, or after its pool."""
    words = {
        "activation": SPELT[network.activation],
        "lrn": "LRN" if network.lrn.over == "tower" else "LRN over all towers",
        "map_norm": "map norm",
        "batch_norm": "batch norm",
    }
    return [words[operation] for operation in operations]


def _heights(network: NetworkConfig) -> dict[str, float]:
    """The height of each row, from the pictures down to the scores at 0."""
    height, heights = 0.0, {}
    for name in (SCORES, *reversed(stage_names(network)), IMAGES):
        heights[name] = height
        meet = network.towers > 1 and name in (SCORES, *network.crossings)
        height += CROSSING if meet else STEP
    if network.towers > 1:
        heights[IMAGES] += 0.07  # for the names of towers
    return heights


def _span(tower: int, network: NetworkConfig) -> tuple[float, float]:
    """The horizontal extent of a tower's boxes, or of those of all."""
    if tower < 0:
        return MARGIN, MARGIN + WIDTH
    gap = 0.5 if network.towers == 2 else 0.15
    each = (WIDTH - gap * (network.towers - 1)) / network.towers
    left = MARGIN + tower * (each + gap)
    return left, left + each


def _draw_box(axes: "Axes", stage: Stage, network: NetworkConfig, height: float) -> None:
    """A stage's box, with its size in it."""
    from matplotlib.patches import Rectangle

    left, right = _span(stage.tower, network)
    box = Rectangle((left, height), right - left, HEIGHT, facecolor="white", edgecolor=INK, linewidth=1)
    axes.add_patch(box)
    words = " x ".join(f"{size:,}" for size in stage.shape)
    axes.text((left + right) / 2, height + HEIGHT / 2 - 0.01, words, ha="center", va="center", fontsize=SMALL)


def _draw_line(axes: "Axes", line: Line, network: NetworkConfig, heights: dict[str, float]) -> None:
    """Draws a line from the lower edge of a box to the upper edge of the one that reads it."""
    (above, start), (below, end) = line.start, line.end
    towers = (end if start < 0 else start), (start if end < 0 else end)
    x = [sum(_span(tower, network)) / 2 for tower in towers]
    y = [heights[above], heights[below] + HEIGHT]
    look = {"color": COLOURS[1], "linewidth": 1.6} if line.crossing else {"color": INK, "linewidth": 0.9}
    axes.plot(x, y, solid_capstyle="butt", zorder=0, **look)


def _name_towers(axes: "Axes", network: NetworkConfig, height: float) -> None:
    """Below the pictures, where there are several."""
    for tower in range(network.towers) if network.towers > 1 else ():
        middle = sum(_span(tower, network)) / 2
        axes.text(middle + 0.06, height - 0.04, f"tower {tower}", va="top", fontsize=SMALL, color=FAINT)


def _verdict(network: NetworkConfig) -> str:
    """The layers at which towers meet, in words."""
    if network.towers == 1:
        return f"One tower, {network.image_size} x {network.image_size} pixels"
    listed = ", ".join((*network.crossings, SCORES))
    return f"{network.towers} towers; thick lines are crossings, where towers meet: {listed}"
