"""Figure 2: boxes and lines are those of the network, whose shapes are asked of itself."""

import dataclasses
import itertools
from pathlib import Path

import jax
import numpy as np
from jax import numpy as jnp
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from alexnet_jax.config.fields import Config, NetworkConfig
from alexnet_jax.figures.towers import IMAGES, diagram, draw_towers, towers
from alexnet_jax.learning.augment import Pixels
from alexnet_jax.learning.prediction import make_activation_step
from alexnet_jax.learning.state import abstract_state, state_shapes
from alexnet_jax.network.shapes import SCORES, stage_names
from alexnet_jax.sharding.mesh import make_mesh
from configs import cifar10, four_layers, imagenet, quickstart
from tests.figures.untrained import recipe, same_colour, stateless

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


def stage_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """The shapes [towers, 1, ...] of the network's own stages for a picture."""
    mesh, size = make_mesh(1, 1), config.data.size
    step = make_activation_step(config, mesh, stage_names(config.network))
    pixels = Pixels(jax.ShapeDtypeStruct((size, size, 3), jnp.float32), jnp.zeros((3, 3)))
    pictures = jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)
    found = jax.eval_shape(step, abstract_state(config, mesh), pixels, pictures)
    return {name: x.shape for name, x in found.items()}


def test_stages_are_the_networks_own() -> None:
    for module, variant in NETS:
        config = recipe(module, variant)
        size, count = config.network.image_size, config.network.towers
        images, *inner, scores = diagram(config.network)[0]
        assert (images.name, images.tower, images.shape) == (IMAGES, -1, (size, size, 3)), variant
        assert (scores.name, scores.tower, scores.shape) == (SCORES, -1, (config.network.classes,)), variant
        names = stage_names(config.network)
        assert [(s.name, s.tower) for s in inner] == list(itertools.product(names, range(count))), variant
        assert {s.name: (count, 1, *s.shape) for s in inner} == stage_shapes(config), variant
        weights, params = {s.name: (count, *s.kernel) for s in inner if s.kernel}, state_shapes(config).params
        assert weights == {name: params[name]["kernel"].shape for name in config.network.layers()}, variant


def test_towers_meet_at_crossings_only() -> None:
    """All pairs of towers are joined before a crossing, and each with itself elsewhere."""
    for module, variant in NETS:
        network = recipe(module, variant).network
        _, lines = diagram(network)
        count = network.towers
        for before, name in itertools.pairwise((IMAGES, *stage_names(network))):
            pairs = itertools.product(range(count), repeat=2)
            if name not in network.crossings:
                pairs = ((-1 if before == IMAGES else i, i) for i in range(count))
            own = {(line.start, line.end) for line in lines if line.end[0] == name}
            assert own == {((before, i), (name, j)) for i, j in pairs}, (variant, name)
        last = {line.start for line in lines if line.end == (SCORES, -1)}
        assert last == {("fc8", i) for i in range(count)}, variant
        meet = {line.end[0] for line in lines if line.crossing}
        assert meet == ({*network.crossings, SCORES} if count > 1 else set()), variant


def test_what_is_drawn() -> None:
    for module, variant in NETS:
        check_drawing(recipe(module, variant).network)


def check_drawing(network: NetworkConfig) -> None:
    """A box for each stage with its size in it, and a line from edge to edge, thick where towers meet."""
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
        "conv1": "11 x 11 x 3 kernels, stride 4, ReLU, LRN",
        "conv2": "5 x 5 x 48 kernels, ReLU, LRN",
        "pool5": "max 3 x 3, stride 2",
        "fc6": "9,216 inputs, ReLU, dropout 0.5",
        "fc8": "4,096 inputs",
    }
    assert rows[1]["conv1"] == "11 x 11 x 3 kernels, stride 4, LRN, ReLU"
    assert rows[1]["conv2"] == "5 x 5 x 48 kernels, ReLU, LRN, map norm"


def test_of_a_run(narrow: Config, tmp_path: Path) -> None:
    """The same drawing, from the run's config."""
    network = dataclasses.replace(narrow.network, classes=11)  # which two towers do not divide
    figure = towers(stateless(dataclasses.replace(narrow, network=network), tmp_path))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts.count("6") == 2 and texts.count("11") == 1
    assert figure.get_suptitle().endswith("where towers meet: conv3, fc6, fc7, fc8, scores")
