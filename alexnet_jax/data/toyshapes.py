"""The embedded data sets: ten classes of coloured shapes and textures, drawn from numbers alone; and 21,
each of the shapes in each of three fillings, to learn from before the ten.

A picture depends on its split's seed and its index, nothing else. To be the same on every machine, arithmetic
on arrays is kept to what IEEE 754 rounds exactly (no sin, exp or matmul); the cosines of single angles are
rounded from float64 to float32, which hides the last bit in which C libraries differ.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

Array = np.ndarray
Outline = Callable[[Array, Array], Array]  # (u, v) -> signed distance, negative inside
Pattern = Callable[[Array, Array, float], Array]  # the same, with the pattern's period

SHORTEST_SIDE, LONGEST_SIDE = 96, 160  # pixels
DIAMETERS = (0.6, 0.9)  # of an object, in shorter sides
TILT = math.pi / 6  # of an object, at most, to either side
PERIODS = (0.5, 0.65)  # of a texture, in object radii
FINE_PERIODS = (0.3, 0.4)  # of a filling
CONTRAST = 0.4  # the least difference, in some channel, between colours that meet in an object
JPEG_QUALITY = 90


@dataclass(frozen=True)
class Canvas:
    """A picture, or a window of one to paint through, with its pixels' coordinates."""

    pixels: Array  # [3, H, W]: planes, so that a colour broadcasts over long rows
    x: Array  # [1, W]
    y: Array  # [H, 1]

    @property
    def half(self) -> float:
        """Half the shorter side."""
        return min(self.pixels.shape[1:]) / 2

    def around(self, right: float, down: float, reach: float) -> "Canvas":
        """The window around a point, its new origin; what is small so costs little to paint."""
        rows, columns = (span(at, middle, reach) for at, middle in ((self.y, down), (self.x, right)))
        return Canvas(self.pixels[:, rows, columns], self.x[:, columns] - right, self.y[rows] - down)


def span(coordinates: Array, middle: float, reach: float) -> slice:
    """The slice of consecutive coordinates that lie about within reach of a middle."""
    first = middle - coordinates.item(0)
    return slice(max(0, int(first - reach)), int(first + reach) + 2)


def disc(u: Array, v: Array) -> Array:
    """A disc; like all outlines here it about fills the unit circle."""
    return np.sqrt(u * u + v * v) - 0.95


def ring(u: Array, v: Array) -> Array:
    """A disc with a wide hole."""
    return np.abs(np.sqrt(u * u + v * v) - 0.77) - 0.2


def crescent(u: Array, v: Array) -> Array:
    """A disc out of which a second one, further right, was cut."""
    shifted = u - 0.5
    return np.maximum(disc(u, v), 0.8 - np.sqrt(shifted * shifted + v * v))


def square(u: Array, v: Array) -> Array:
    """A square, its corners on the unit circle."""
    return np.maximum(np.abs(u), np.abs(v)) - 0.72


def cross(u: Array, v: Array) -> Array:
    """A Greek cross."""
    near, far = np.minimum(np.abs(u), np.abs(v)), np.maximum(np.abs(u), np.abs(v))
    return np.maximum(near - 0.27, far - 0.95)


def triangle(u: Array, v: Array) -> Array:
    """An equilateral triangle: three sides as far from the middle."""
    normals = [turned(u, v, 2 * math.pi * side / 3)[0] for side in range(3)]
    return np.maximum(np.maximum(*normals[:2]), normals[2]) - 0.52


def bar(u: Array, v: Array) -> Array:
    """A bar, three times as long as it is wide."""
    return np.maximum(np.abs(u) - 0.9, np.abs(v) - 0.3)


def blob(u: Array, v: Array) -> Array:
    """A disc with three bulges, the ground of every texture."""
    radius = np.sqrt(u * u + v * v)
    cosine = u / (radius + 1e-3)
    return radius - 0.9 - 0.1 * (4 * cosine * cosine - 3) * cosine  # cos(3t) = 4 cos(t)^3 - 3 cos(t)


def stripes(u: Array, v: Array, period: float) -> Array:  # noqa: ARG001
    """Bars as wide as the gaps between them."""
    return np.abs(folded(u, period)) - period / 4


def checks(u: Array, v: Array, period: float) -> Array:
    """A chequerboard: inside both of two sets of stripes, or outside both."""
    across, down = stripes(u, v, 1.4 * period), stripes(v, u, 1.4 * period)
    return np.minimum(np.maximum(across, down), np.maximum(-across, -down))


def target(u: Array, v: Array, period: float) -> Array:
    """Circles within circles."""
    return np.abs(folded(np.sqrt(u * u + v * v), period)) - period / 4


def folded(u: Array, period: float) -> Array:
    """The offset from the centre of the period that each point lies in."""
    return u - period * (np.floor(u / period) + np.float32(0.5))


SHAPES: tuple[Outline, ...] = (disc, ring, crescent, square, cross, triangle, bar)
TEXTURES: tuple[Pattern, ...] = (stripes, checks, target)
FILLINGS: tuple[Pattern, ...] = (stripes, checks)


@dataclass(frozen=True)
class Subjects:
    """The objects that the pictures of a data set show."""

    class_names: tuple[str, ...]
    layers: Callable[[np.random.Generator, Array, Array, int], list[Array]]  # of an object, bottom up
    seeds: dict[str, int]  # of each split
    sizes: dict[str, int]


def object_layers(rng: np.random.Generator, u: Array, v: Array, label: int) -> list[Array]:
    """The layers to paint, a colour each: a shape is one layer, a texture lies on a blob."""
    if label < len(SHAPES):
        return [SHAPES[label](u, v)]
    return textured(rng, u, v, blob(u, v), TEXTURES[label - len(SHAPES)], PERIODS)


def filled_layers(rng: np.random.Generator, u: Array, v: Array, label: int) -> list[Array]:
    """A shape in one colour, or with a filling of another."""
    filling, shape = divmod(label, len(SHAPES))
    outline = SHAPES[shape](u, v)
    return textured(rng, u, v, outline, FILLINGS[filling - 1], FINE_PERIODS) if filling else [outline]


def textured(
    rng: np.random.Generator,
    u: Array,
    v: Array,
    outline: Array,
    pattern: Pattern,
    periods: tuple[float, float],
) -> list[Array]:
    """An outline, and a pattern within it."""
    right, down = rng.uniform(-0.25, 0.25, 2).tolist()
    return [outline, np.maximum(outline, pattern(u + right, v + down, rng.uniform(*periods)))]


TEN = Subjects(
    tuple(draw.__name__ for draw in SHAPES + TEXTURES),
    object_layers,
    {"train": 2010, "validation": 2012},
    {"train": 4_000, "validation": 1_000},
)
TWENTY_ONE = Subjects(
    tuple(f"{filling}{shape.__name__}" for filling in ("", "striped_", "checked_") for shape in SHAPES),
    filled_layers,
    {"train": 2009, "validation": 2011},
    {"train": 8_400, "validation": 1_050},
)


SUBJECTS = {"toyshapes": TEN, "toyshapes21": TWENTY_ONE}


def turned(x: Array, y: Array, angle: float) -> tuple[Array, Array]:
    """The coordinates in axes that are turned by an angle."""
    c, s = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return c * x + s * y, c * y - s * x


def paint(pixels: Array, distance: Array, colour: Array) -> None:
    """Colours in place where the distance in pixels is negative, blending over one pixel's edge."""
    cover = np.clip(0.5 - distance, 0, 1)
    pixels += cover * (colour - pixels)


def random_colour(rng: np.random.Generator, *others: Array) -> Array:
    """A colour that differs clearly from the others."""
    while True:
        colour = rng.uniform(0.08, 0.92, (3, 1, 1)).astype(np.float32)
        if all(np.abs(colour - other).max() > CONTRAST for other in others):
            return colour


def smooth_noise(rng: np.random.Generator, height: int, width: int) -> Array:
    """A few random values in [-1, 1], interpolated over the picture."""
    values = rng.uniform(-1, 1, rng.integers(3, 12, 2)).astype(np.float32)
    return stretched(stretched(values, height).T, width).T  # [H, W]


def stretched(rows: Array, length: int) -> Array:
    """The rows, linearly interpolated to a length."""
    where = np.arange(length, dtype=np.float32) * np.float32((len(rows) - 1) / length)
    below = np.floor(where).astype(np.int32)
    return rows[below] + (where - below)[:, None] * (rows[below + 1] - rows[below])


def blank(rng: np.random.Generator, colour: Array) -> Canvas:
    """A canvas of some size in one colour with smooth mottles."""
    height, width = rng.integers(SHORTEST_SIDE, LONGEST_SIDE, 2, endpoint=True).tolist()
    strength = rng.uniform(-0.2, 0.2, (3, 1, 1)).astype(np.float32)
    x = np.arange(width, dtype=np.float32) - (width - 1) / 2
    y = np.arange(height, dtype=np.float32) - (height - 1) / 2
    return Canvas(colour + strength * smooth_noise(rng, height, width), x[None, :], y[:, None])


def paint_clutter(rng: np.random.Generator, canvas: Canvas) -> None:
    """A blot or a line, far smaller than the objects, anywhere."""
    length = canvas.half * max(0, rng.uniform(-0.3, 0.3))
    thickness = canvas.half * rng.uniform(0.02, 0.08)
    x, y = rng.uniform(*canvas.x[0, [0, -1]]), rng.uniform(*canvas.y[[0, -1], 0])
    window = canvas.around(x, y, length + thickness + 1)
    u, v = turned(window.x, window.y, rng.uniform(0, math.pi))
    beyond = np.maximum(np.abs(u) - length, 0)
    paint(window.pixels, np.sqrt(beyond * beyond + v * v) - thickness, random_colour(rng))


def paint_object(
    rng: np.random.Generator, canvas: Canvas, label: int, ground: Array, subjects: Subjects = TEN
) -> None:
    """The shape or texture to be recognised, near enough to the middle that a centre crop keeps it."""
    radius = canvas.half * rng.uniform(*DIAMETERS)
    right, down = ((canvas.half - radius) * shift for shift in rng.uniform(-0.5, 0.5, 2).tolist())
    window = canvas.around(right, down, 1.1 * radius)
    u, v = turned(window.x / radius, window.y / radius, rng.uniform(-TILT, TILT))
    colours = [ground]
    for layer in subjects.layers(rng, u / rng.uniform(0.8, 1), v, label):
        colours.append(random_colour(rng, *colours))
        paint(window.pixels, layer * radius, colours[-1])


def photographed(rng: np.random.Generator, canvas: Canvas) -> Array:
    """The picture under a light of some strength that falls off to one side, with the camera's grain."""
    along, _ = turned(canvas.x, canvas.y, rng.uniform(0, 2 * math.pi))
    fall = rng.uniform(0, 0.2) / canvas.half
    light = 255 * rng.uniform(0.7, 1.15) * (1 + fall * along)
    grain = rng.uniform(0, 38) * (rng.random(light.shape, np.float32) - 0.5)
    levels = np.clip(canvas.pixels * light + grain, 0, 255).astype(np.uint8)
    return levels.transpose(1, 2, 0)  # [H, W, 3]


def draw_picture(seed: int, index: int, subjects: Subjects = TEN) -> Array:
    """Picture number `index` of a split; the classes take turns."""
    rng = np.random.default_rng([seed, index])
    ground = random_colour(rng)
    canvas = blank(rng, ground)
    for _ in range(rng.integers(1, 6)):
        paint_clutter(rng, canvas)
    paint_object(rng, canvas, index % len(subjects.class_names), ground, subjects)
    return photographed(rng, canvas)


def make_example(split: str, index: int, subjects: Subjects = TEN) -> dict[str, Any]:
    """One example, its picture already encoded."""
    picture = draw_picture(subjects.seeds[split], index, subjects)
    jpeg = tf.io.encode_jpeg(picture, quality=JPEG_QUALITY).numpy()
    label = index % len(subjects.class_names)
    return {"image": jpeg, "label": label, "file_name": example_name(split, index)}


def example_name(split: str, index: int) -> str:
    return f"{split}_{index:05d}.JPEG"
