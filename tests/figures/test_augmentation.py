"""Augmentation as drawn: crops from where it is said, colours that move by what is said."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from etils import epath
from jax import numpy as jnp
from tensorflow_datasets.core import DatasetBuilder

from alexnet_jax.config.fields import Config
from alexnet_jax.data.packing import Work, pack
from alexnet_jax.data.shards import PackedForm
from alexnet_jax.errors import RefusedError
from alexnet_jax.figures.augmentation import augmentations, colour_noise
from alexnet_jax.learning.loss import example_keys
from alexnet_jax.trained.opened import TrainedRun
from tests.data.conftest import plan
from tests.figures.untrained import untrained

SOURCE = {"last_offset": True, "mean": "centre", "colour_divides": True, "shared_by": 32}


def opened(config: Config, home: Path, encoding: str = "raw", **augment: Any) -> TrainedRun:
    """A run on forty pictures."""
    data = dataclasses.replace(config.data, name="toyshapes", dir=str(home), encoding=encoding)
    augment = dataclasses.replace(config.augment, **augment)
    return untrained(dataclasses.replace(config, data=data, augment=augment), home, tower=2)


def deviations(run: TrainedRun) -> np.ndarray:
    """Section 4.1 in float64: the components of the training pixels, as columns, times a tenth of roots."""
    values, vectors = np.linalg.eigh(run.packed.statistics.covariance)
    return 0.1 * vectors * np.sqrt(values)


def shifts(run: TrainedRun) -> np.ndarray:
    """The colour that each draw adds: [draws, 3]."""
    keys = example_keys(run.config.seed, jnp.zeros((), jnp.int32), 32)[:, 1]
    draws = jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
    return np.asarray(draws, np.float64) @ deviations(run).T


@pytest.mark.parametrize("augment", [{}, SOURCE], ids=["paper", "source"])
def test_every_draw_is_what_it_says(augment: dict[str, Any], narrow: Config, home: Path) -> None:
    """The crop that its title names, mirrored if it says so, in the colours that its key gives."""
    run = opened(narrow, home, **augment)
    figure = augmentations(run, row=3)
    original, places, *draws = figure.axes
    [picture], [label] = run.packed.table("validation")(np.array([3]))
    np.testing.assert_array_equal(original.images[0].get_array(), picture)
    assert figure.get_suptitle().startswith(f"Validation picture 3 ({run.packed.class_names[label]}), and 32")
    assert len(draws) == 32
    mean = run.packed.statistics.mean.astype(np.float64)[4:68, 4:68]
    corners = {False: [], True: []}
    for axes, shift in zip(draws, shifts(run), strict=True):
        place, mirrored = axes.get_title().removesuffix(" m"), axes.get_title().endswith(" m")
        top, left = (int(part) for part in place.split(", "))
        corners[mirrored].append((left, top))
        crop = picture[top : top + 64, left : left + 64].astype(np.float64)
        crop = crop[:, ::-1] if mirrored else crop
        wanted = (crop - mean + shift) / 1.1 + mean if augment else crop + shift
        shown = np.asarray(axes.images[0].get_array(), np.float64)
        assert np.abs(shown - np.clip(wanted, 0, 255)).max() <= 0.51
    last = 8 if augment else 7  # the source has a place more each way
    found = {place for own in corners.values() for place in own}
    assert {max(place[i] for place in found) for i in range(2)} == {last} and len(found) > 16
    assert min(map(len, corners.values())) > 8
    dots = [line.get_xydata().astype(int).tolist() for line in places.lines]
    assert [sorted(map(tuple, own)) for own in dots] == [sorted(corners[m]) for m in (False, True)]


def test_no_flips_and_no_noise(narrow: Config, home: Path) -> None:
    """Then every draw is a part of the picture, bit for bit."""
    run = opened(narrow, home, flip=False, colour_noise=0.0)
    original, _, *draws = augmentations(run).axes
    picture = np.asarray(original.images[0].get_array())
    for axes in draws:
        top, left = (int(part) for part in axes.get_title().split(", "))
        np.testing.assert_array_equal(axes.images[0].get_array(), picture[top : top + 64, left : left + 64])
    with pytest.raises(RefusedError, match=r"no colour noise \(augment\.colour_noise=0\)"):
        colour_noise(run)


def test_colours_move_along_components(narrow: Config, home: Path) -> None:
    """By -3 to 3 deviations of what the training pixels' covariance says, the largest first."""
    run = opened(narrow, home)
    figure = colour_noise(run, row=2)
    [picture], _ = run.packed.table("validation")(np.array([2]))
    grid = np.array(figure.axes, object).reshape(3, 7)
    assert [axes.get_title() for axes in grid[0]] == ["-3", "-2", "-1", "0", "+1", "+2", "+3"]
    for line, component in zip(grid, deviations(run).T[::-1], strict=True):
        component = component if component.sum() > 0 else -component  # brighter to the right
        for axes, times in zip(line, range(-3, 4), strict=True):
            shown = np.asarray(axes.images[0].get_array(), np.float64)
            assert np.abs(shown - np.clip(picture + times * component, 0, 255)).max() <= 0.51
        length = np.linalg.norm(component)
        words = line[0].get_ylabel().split("\n")
        assert words[0] == f"deviation {length:.3g}"
        stated = [float(part) for part in words[1].split()[1::2]]
        np.testing.assert_allclose(stated, component / length, atol=0.0051)


def test_words_fit(narrow: Config, home: Path) -> None:
    """Inside the figure, and the titles of neighbours apart."""
    run = opened(narrow, home)
    for figure in (augmentations(run), colour_noise(run)):
        figure.draw_without_rendering()
        width, height = figure.canvas.get_width_height()
        boxes = [figure._suptitle.get_window_extent()]
        boxes += [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
        assert all(b.x0 >= 0 and b.x1 <= width and b.y0 >= 0 and b.y1 <= height for b in boxes)
        assert not any(b.overlaps(other) for i, b in enumerate(boxes) for other in boxes[i + 1 :])


def test_rows_that_there_are_not(narrow: Config, home: Path) -> None:
    run = opened(narrow, home)
    for row in (-1, 20):
        with pytest.raises(RefusedError, match=f"no picture {row} in the 20 for validation; choose 0 to 19"):
            augmentations(run, row)


def test_encoded_pictures(few: DatasetBuilder, narrow: Config, home: Path) -> None:
    """They are decoded; what is left of them is nearly the raw picture."""
    path = home / "packed" / "toyshapes-72-jpeg"
    pack(plan(few, epath.Path(path), PackedForm(72, "jpeg")), Work())
    found, named = opened(narrow, home, encoding="jpeg").picture(1)
    wanted, raw_named = opened(narrow, home).picture(1)
    assert named == raw_named and found.shape == (72, 72, 3) and found.dtype == np.uint8
    assert np.abs(found.astype(int) - wanted).mean() < 8
