"""Figure 2: boxes and lines are those of the network, whose shapes are asked of itself."""

import dataclasses
import itertools
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from alexnet_jax.config import Config
from alexnet_jax.learning.augment import Pixels
from alexnet_jax.learning.prediction import make_stage_step
from alexnet_jax.learning.step import abstract_state, state_shapes
from alexnet_jax.mesh import make_mesh
from alexnet_jax.network.alexnet import SCORES, stage_names
from alexnet_jax.seeing.towers import IMAGES, diagram, draw_towers, towers
from configs import cifar10, four_layers, imagenet, quickstart
from tests.seeing.untrained import recipe, same_colour, stateless

NETS = [
    (imagenet, "paper"),
    (imagenet, "source"),
    (imagenet, "half"),
    (imagenet, "four_towers"),
    (imagenet, "no_communication"),
    (imagenet, "no_conv3"),
    (imagenet, "six_convs"),
    (quickstart, "batch_norm"),
    (cifar10, "paper"),
    (four_layers, "lrn"),
    (four_layers, "eleven,four_towers"),
]
every_net = pytest.mark.parametrize(("module", "variant"), NETS, ids=lambda x: getattr(x, "__name__", x))


def stage_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """What the network itself would hand on for a picture, [towers, 1, ...], without computing it."""
    mesh, size = make_mesh(1, 1), config.data.size
    step = make_stage_step(config, mesh, stage_names(config.network))
    pixels = Pixels(jax.ShapeDtypeStruct((size, size, 3), jnp.float32), jnp.zeros((3, 3)))
    pictures = jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)
    found = jax.eval_shape(step, abstract_state(config, mesh), pixels, pictures)
    return {name: x.shape for name, x in found.items()}


@every_net
def test_stages_are_the_networks_own(module: ModuleType, variant: str) -> None:
    config = recipe(module, variant)
    count, params = config.network.towers, state_shapes(config).params
    stages, _ = diagram(config.network)
    assert [(s.name, s.tower, s.shape) for s in (stages[0], stages[-1])] == [
        (IMAGES, -1, (config.network.image_size, config.network.image_size, 3)),
        (SCORES, -1, (config.network.classes,)),
    ]
    inner = stages[1:-1]
    names = stage_names(config.network)
    assert [(s.name, s.tower) for s in inner] == list(itertools.product(names, range(count)))
    shapes = stage_shapes(config)
    assert {s.name: (count, 1, *s.shape) for s in inner} == shapes
    weights = {s.name: (count, *s.kernel) for s in inner if s.kernel}
    assert weights == {name: params[name]["kernel"].shape for name in config.network.layers()}


@every_net
def test_towers_meet_at_crossings_only(module: ModuleType, variant: str) -> None:
    """All pairs of towers are joined before a crossing, and each with itself elsewhere."""
    network = recipe(module, variant).network
    _, lines = diagram(network)
    count, names = network.towers, stage_names(network)
    for before, name in itertools.pairwise((IMAGES, *names)):
        own = {(line.start, line.end) for line in lines if line.end[0] == name}
        if name in network.crossings:
            assert own == {((before, i), (name, j)) for i in range(count) for j in range(count)}
        else:
            assert own == {((before, -1 if before == IMAGES else i), (name, i)) for i in range(count)}
    assert {line.start for line in lines if line.end == (SCORES, -1)} == {("fc8", i) for i in range(count)}
    meet = {line.end[0] for line in lines if line.crossing}
    assert meet == ({*network.crossings, SCORES} if count > 1 else set())


@every_net
def test_what_is_drawn(module: ModuleType, variant: str) -> None:
    """A box for each stage with its size in it, and a line from edge to edge, thick where towers meet."""
    network = recipe(module, variant).network
    figure = draw_towers(network)
    [axes] = figure.axes
    stages, lines = diagram(network)
    boxes = [patch.get_bbox() for patch in axes.patches if isinstance(patch, Rectangle)]
    assert len(boxes) == len(stages)
    words = {text.get_position(): text.get_text() for text in axes.texts}
    for box, stage in zip(boxes, stages, strict=True):
        inside = [text for (x, y), text in words.items() if box.contains(x, y)]
        assert inside == [" x ".join(f"{size:,}" for size in stage.shape)]
    place = {(s.name, s.tower): box for s, box in zip(stages, boxes, strict=True)}
    for drawn, line in zip(axes.lines, lines, strict=True):
        (x0, y0), (x1, y1) = drawn.get_xydata()
        above, below = place[line.start], place[line.end]
        assert above.x0 < x0 < above.x1 and below.x0 < x1 < below.x1
        np.testing.assert_allclose((y0, y1), (above.y0, below.y1))
        assert drawn.get_linewidth() == (1.6 if line.crossing else 0.9)
    colours = {drawn.get_linewidth(): drawn.get_color() for drawn in axes.lines}
    assert network.towers == 1 or not same_colour(colours[0.9], colours[1.6])
    check_readable(figure)


def check_readable(figure: Figure) -> None:
    """No words beyond the edges, on each other, or across the edge of a box."""
    figure.draw_without_rendering()
    [axes] = figure.axes
    words = [text.get_window_extent() for text in (*axes.texts, figure._suptitle)]
    width, height = figure.canvas.get_width_height()
    assert all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= width and b.y1 <= height for b in words)
    assert not any(a.shrunk(0.98, 0.8).overlaps(b) for a, b in itertools.combinations(words, 2))
    for box in (patch.get_window_extent() for patch in axes.patches):
        for own in words:
            inside = own.x0 > box.x0 and own.x1 < box.x1 and own.y0 >= box.y0 and own.y1 <= box.y1
            assert inside or not own.shrunk(0.98, 0.8).overlaps(box)


def test_words_say_what_layers_do() -> None:
    """The paper's, and what the authors' code did."""
    rows = []
    for variant in ("paper", "source"):
        texts = [text.get_text() for text in draw_towers(recipe(imagenet, variant).network).axes[0].texts]
        rows.append(
            {name: texts[texts.index(name) + 1] for name in ("conv1", "conv2", "pool5", "fc6", "fc8")}
        )
    assert rows[0] == {
        "conv1": "11 x 11 x 3 kernels, 4 apart, ReLU, LRN",
        "conv2": "5 x 5 x 48 kernels, ReLU, LRN",
        "pool5": "max 3 x 3, 2 apart",
        "fc6": "9,216 inputs, ReLU, dropout 0.5",
        "fc8": "4,096 inputs",
    }
    assert rows[1]["conv1"] == "11 x 11 x 3 kernels, 4 apart, LRN, ReLU"
    assert rows[1]["conv2"] == "5 x 5 x 48 kernels, ReLU, LRN, map norm"


def test_of_a_run(narrow: Config, tmp_path: Path) -> None:
    """The same drawing, from the run's config."""
    network = dataclasses.replace(narrow.network, classes=11)  # which two towers do not divide
    figure = towers(stateless(dataclasses.replace(narrow, network=network), tmp_path))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts.count("6") == 2 and texts.count("11") == 1
    assert figure.get_suptitle().endswith("where towers meet: conv3, fc6, fc7, fc8, scores")
