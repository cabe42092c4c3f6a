"""The embedded data set: the same everywhere, balanced, and out of reach of a linear classifier."""

import itertools
import math
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tensorflow as tf

from alexnet_jax.data import toyshapes
from alexnet_jax.data.toyshapes import TEN, TWENTY_ONE, Subjects

CROP = 64 / 72  # of the shorter side: what a centre crop keeps of a picture that was resized to 72 pixels
Splits = dict[str, list[dict[str, Any]]]
Table = tuple[np.ndarray, np.ndarray]  # features [examples, features], labels [examples]


@pytest.fixture(scope="module")
def full() -> Splits:
    """The full data set."""
    draw = toyshapes.make_example
    return {split: [draw(split, index) for index in range(size)] for split, size in TEN.sizes.items()}


@pytest.fixture(scope="module")
def reduced(full: Splits) -> dict[str, Table]:
    """The full data set in 32 x 32 pixels."""
    return {
        split: (np.stack([shrunk(e["image"]) for e in examples]), np.array([e["label"] for e in examples]))
        for split, examples in full.items()
    }


def shrunk(encoded: bytes) -> np.ndarray:
    """A picture's centre square in 32 x 32 pixels."""
    picture = tf.io.decode_jpeg(encoded)
    side = min(picture.shape[:2])
    square = tf.image.resize_with_crop_or_pad(picture, side, side)
    return tf.image.resize(square, (32, 32), "area").numpy()


def standardised(train: Table, validation: Table) -> tuple[Table, Table]:
    """Features as softmax regression likes them, and a constant one, whose weights are the biases."""
    mean, deviation = train[0].mean(0), train[0].std(0)
    parts = [((x - mean) / deviation, labels) for x, labels in (train, validation)]
    return tuple((np.pad(x, ((0, 0), (0, 1)), constant_values=1), labels) for x, labels in parts)


def linear_accuracy(train: Table, validation: Table, steps: int) -> float:
    """Softmax regression's best validation accuracy at any step and any of three L2 strengths."""
    train, validation = standardised(train, validation)
    strengths = jnp.array([1e-3, 1e-2, 1e-1])[:, None, None]
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

    def loss(weights: jax.Array, x: jax.Array, labels: jax.Array) -> jax.Array:
        chances = jax.nn.log_softmax(jnp.einsum("bi,sio->bos", x, weights), axis=1)  # all strengths at once
        misfit = -jnp.take_along_axis(chances, labels[:, None, None], axis=1).mean(0)
        return misfit.sum() + (strengths / 2 * weights**2).sum()

    @jax.jit
    def step(weights: jax.Array, moments: optax.OptState, x: jax.Array, labels: jax.Array) -> tuple[Any, ...]:
        updates, moments = optimizer.update(jax.grad(loss)(weights, x, labels), moments)
        return optax.apply_updates(weights, updates), moments

    @jax.jit
    def accuracy(weights: jax.Array, x: jax.Array, labels: jax.Array) -> jax.Array:
        return (jnp.einsum("bi,sio->sbo", x, weights).argmax(-1) == labels[None]).mean(1).max()

    weights = jnp.zeros((3, train[0].shape[1], 10))
    moments, best = optimizer.init(weights), 0.0
    for _ in range(steps):
        weights, moments = step(weights, moments, *train)
        best = max(best, accuracy(weights, *validation).item())
    return best


def test_a_linear_classifier_finds_what_is_linear() -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(1_000, 8)), rng.normal(size=(8, 10))
    table = x.astype(np.float32), (x @ weights).argmax(1)
    assert linear_accuracy(table, table, steps=500) > 0.70


@pytest.mark.slow
def test_raw_pixels_do_not_give_the_class_away(reduced: dict[str, Table]) -> None:
    flat = {split: (x.reshape(len(x), -1), labels) for split, (x, labels) in reduced.items()}
    assert linear_accuracy(**flat, steps=40) < 0.60


@pytest.mark.slow
def test_mean_colour_does_not_give_the_class_away(reduced: dict[str, Table]) -> None:
    means = {split: (x.mean((1, 2)), labels) for split, (x, labels) in reduced.items()}
    assert linear_accuracy(**means, steps=200) < 0.25


def test_an_example_is_a_function_of_its_split_and_index() -> None:
    example = toyshapes.make_example("train", 3)
    assert toyshapes.make_example("train", 3) == example
    others = [toyshapes.make_example(*other)["image"] for other in (("train", 13), ("validation", 3))]
    assert example["image"] not in others


@pytest.mark.parametrize(
    ("subjects", "digest"), [(TEN, 393118222), (TWENTY_ONE, 3252672524)], ids=["10", "21"]
)
def test_pictures_are_the_same_on_every_machine(subjects: Subjects, digest: int) -> None:
    # One picture of each class, as first drawn; pixels, since encoders may differ.
    indices = range(len(subjects.class_names))
    pictures = [toyshapes.draw_picture(subjects.seeds["train"], index, subjects) for index in indices]
    assert zlib.crc32(b"".join(picture.tobytes() for picture in pictures)) == digest


def test_twenty_one_classes() -> None:
    """Seven shapes in three fillings, none of the pictures of the ten; what is filled has another colour."""
    names = TWENTY_ONE.class_names
    assert (len(names), names[0], names[7], names[20]) == (21, "disc", "striped_disc", "checked_bar")
    assert not set(TEN.seeds.values()) & set(TWENTY_ONE.seeds.values())
    rng, (x, y) = np.random.default_rng(0), np.meshgrid(*2 * [np.linspace(-1, 1, 64, dtype=np.float32)])
    for label in range(7, 21):
        outline, filling = toyshapes.filled_layers(rng, x, y, label)
        np.testing.assert_array_equal(outline, toyshapes.SHAPES[label % 7](x, y))
        inside = outline < 0
        assert not np.any(filling[~inside] < 0)
        assert 0.2 < np.mean(filling[inside] < 0) < 0.8


def test_no_picture_is_drawn_twice(full: Splits) -> None:
    assert len(set(TEN.seeds.values())) == len(TEN.seeds)
    pictures = [example["image"] for split in full.values() for example in split]
    assert len(set(pictures)) == len(pictures) == 5_000


@pytest.mark.parametrize(("split", "size"), [("train", 4_000), ("validation", 1_000)])
def test_classes_are_balanced(full: Splits, split: str, size: int) -> None:
    labels = [example["label"] for example in full[split]]
    assert np.bincount(labels).tolist() == [size // 10] * 10


def test_features(full: Splits) -> None:
    names = {split: {example["file_name"] for example in full[split]} for split in TEN.seeds}
    assert names["train"] == {f"train_{index:05d}.JPEG" for index in range(4_000)}
    assert names["validation"] == {f"validation_{index:05d}.JPEG" for index in range(1_000)}
    for example in full["validation"]:
        assert example["label"] == int(example["file_name"][-10:-5]) % 10


def test_sizes_and_aspect_ratios_vary(full: Splits) -> None:
    shapes = np.array([tf.io.extract_jpeg_shape(e["image"]).numpy() for e in full["validation"]])
    assert (shapes[:, 2] == 3).all()
    assert (shapes[:, :2].min(0) == 96).all() and (shapes[:, :2].max(0) == 160).all()
    ratios = shapes[:, 0] / shapes[:, 1]
    assert ratios.min() < 0.7 and ratios.max() > 1.4


@pytest.mark.parametrize(
    ("subjects", "label"),
    [*((TEN, label) for label in range(10)), *((TWENTY_ONE, label) for label in range(7, 21))],
    ids=lambda value: value if isinstance(value, int) else str(len(value.class_names)),
)
def test_a_centre_crop_keeps_the_object(subjects: Subjects, label: int) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        canvas = toyshapes.blank(rng, np.zeros((3, 1, 1), np.float32))
        background = canvas.pixels.copy()
        toyshapes.paint_object(rng, canvas, label, background.mean((1, 2), keepdims=True), subjects)
        painted = (canvas.pixels != background).any(0)
        kept = np.maximum(np.abs(canvas.x), np.abs(canvas.y)) <= CROP * canvas.half
        assert painted[kept].sum() > 0.9 * painted.sum()


def test_shapes_differ_in_every_rotation() -> None:
    x, y = np.meshgrid(*2 * [np.linspace(-1, 1, 64, dtype=np.float32)])
    angles = [math.radians(degrees) for degrees in range(0, 360, 5)]
    for one, other in itertools.combinations(toyshapes.SHAPES, 2):
        still = one(x, y) < 0
        turned = np.array([other(*toyshapes.turned(x, y, angle)) < 0 for angle in angles])
        overlaps = (still & turned).sum((1, 2)) / (still | turned).sum((1, 2))
        assert overlaps.max() < 0.75, (one.__name__, other.__name__)
