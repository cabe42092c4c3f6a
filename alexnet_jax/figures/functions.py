"""Sections 3.1 and 3.3: activations with their gradients, and what LRN makes of a row of responses.

Both are asked of the network's own code, with the constants of the run.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax import numpy as jnp

from alexnet_jax.config.fields import LrnConfig, NetworkConfig
from alexnet_jax.figures.style import COLOURS, INK, LIGHT, LINES, SMALL, SPELT, USUAL, head, plain, sheet
from alexnet_jax.network.lrn import local_response_norm
from alexnet_jax.network.variants import ACTIVATIONS, lrn_factor
from alexnet_jax.trained.opened import TrainedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REACH, POINTS = 4.0, 401
STRONG, WEAK = 1.0, 0.25  # responses, in units of `unit`
# Neighbouring maps at one place, with nothing around them.
GROUPS = {
    "a weak one\nalone": (WEAK,),
    "a strong one\nalone": (STRONG,),
    "weak ones beside\na strong one": (WEAK, WEAK, STRONG, WEAK, WEAK),
    "strong ones among\nthemselves": (STRONG,) * 5,
}


@dataclass(frozen=True)
class Activation:
    """A function and its gradient at the same places; f32[places] each."""

    at: np.ndarray
    value: np.ndarray
    gradient: np.ndarray


def functions(opened: TrainedRun) -> "Figure":
    """Activations on the left, their gradients on the right; below, responses before and after LRN."""
    figure = sheet(4.6)
    panels = figure.subplot_mosaic([["value", "gradient"], ["lrn", "lrn"]], height_ratios=(3, 2.2))
    left, right = panels["value"], panels["gradient"]
    own = opened.config.network.activation
    for number, (name, found) in enumerate(activations().items()):
        look = {"color": COLOURS[number], "linestyle": LINES[number]}
        look["linewidth"] = 2.4 if name == own else 1.4
        left.plot(found.at, found.value, label=SPELT[name], **look)
        right.plot(found.at, found.gradient, label=SPELT[name], **look)
    left.set_ylim(-1.2, 2.6)
    right.set_ylim(-0.05, 1.1)
    left.legend(loc="upper left", frameon=False, fontsize=SMALL, handlelength=3)
    for axes, words in ((left, "activations"), (right, "their gradients")):
        axes.set_title(words, loc="left", fontsize=USUAL)
        axes.axhline(0, color=LIGHT, linewidth=0.8, zorder=0)
        plain(axes)
    _draw_lrn(panels["lrn"], opened.config.network.lrn)
    head(figure, f"This run's activation is {SPELT[own]}, the thicker curve{_where(opened.config.network)}")
    return figure


def activations() -> dict[str, Activation]:
    """Every activation that a network can have, around 0."""
    at = jnp.linspace(-REACH, REACH, POINTS)
    return {
        name: Activation(*map(np.asarray, (at, function(at), jax.vmap(jax.grad(function))(at))))
        for name, function in ACTIVATIONS.items()
    }


def unit(lrn: LrnConfig) -> float:
    """The response whose square, by itself, adds as much as the constant k: larger ones are held down."""
    factor = lrn_factor(lrn)
    return float(np.sqrt(lrn.k / factor)) if factor else 1.0


def lrn_responses(lrn: LrnConfig) -> tuple[np.ndarray, np.ndarray]:
    """A row of responses, one for each map at a place, and what LRN makes of it; f32[maps] each."""
    before = np.float32(unit(lrn)) * np.concatenate(_row(lrn.size)[0]).astype(np.float32)
    after = local_response_norm(jnp.asarray(before), lrn.size, lrn.k, lrn_factor(lrn), lrn.beta)
    return before, np.asarray(after)


def _row(size: int) -> tuple[list[np.ndarray], list[float]]:
    """Every group behind as many silent maps as keep it out of the windows of others; and their middles."""
    silent, parts, middles, start = np.zeros(max(size // 2 + 1, 2)), [], [], 0
    for group in GROUPS.values():
        parts += [silent, np.array(group)]
        middles.append(start + len(silent) + (len(group) - 1) / 2)
        start += len(silent) + len(group)
    return [*parts, silent], middles


def _where(network: NetworkConfig) -> str:
    """The layers after which this run normalises."""
    layers = [name for name, conv in network.convs().items() if "lrn" in conv.then]
    return f"; LRN is in {' and '.join(layers)}" if layers else "; it has no LRN"


def _draw_lrn(axes: "Axes", lrn: LrnConfig) -> None:
    """Bars before, hollow, and after, filled, map by map."""
    before, after = lrn_responses(lrn)
    maps = np.arange(len(before))
    axes.bar(maps, before, 0.8, facecolor="white", edgecolor=INK, linewidth=1, label="before")
    axes.bar(maps, after, 0.8, facecolor=COLOURS[0], edgecolor=INK, linewidth=1, label="after")
    axes.set_xticks(_row(lrn.size)[1], GROUPS)
    axes.set_ylabel("response", fontsize=USUAL)
    constants = f"k = {lrn.k:g}, n = {lrn.size}, alpha = {lrn_factor(lrn):g}, beta = {lrn.beta:g}"
    axes.set_title(f"LRN of neighbouring maps, {constants}", loc="left", fontsize=USUAL)
    axes.set_ylim(top=1.3 * before.max())
    axes.legend(loc="upper left", frameon=False, fontsize=SMALL, ncols=2)
    plain(axes)
    axes.tick_params(axis="x", length=0)
