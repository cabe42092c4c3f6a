"""Crops, flips, mean, colour noise and views against NumPy and their distributions."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest

from alexnet_jax.config.building import build
from alexnet_jax.config.fields import AugmentConfig
from alexnet_jax.learning.augment import Pixels, draw_colours, fixed_views, random_view, shared
from configs.imagenet import PAPER
from tests.learning.steps import pixels_of

PLAIN = build(PAPER | {"augment": PAPER["augment"] | {"colour_noise": 0.0}}).augment
SIZE, CROP = 20, 12
# Each pixel says where it is.
PICTURE = np.stack([*np.mgrid[:SIZE, :SIZE], np.zeros((SIZE, SIZE))], axis=-1).astype(np.uint8)


def views(
    picture: np.ndarray, looks: Pixels, crop: int, config: AugmentConfig, count: int, strength: float = 1
) -> np.ndarray:
    look = jax.vmap(partial(random_view, size=crop, config=config), in_axes=(None, 0, 0, None))
    keys, colour_keys = jax.random.split(jax.random.key(0), (2, count))
    colours = draw_colours(colour_keys, looks, np.float32(strength), config)
    return np.asarray(jax.jit(look)(picture, shared(keys, config.shared_by), colours, looks))


def blank(size: int) -> Pixels:
    return pixels_of(np.zeros((size, size, 3)), np.eye(3), PLAIN)


def test_crops_and_flips() -> None:
    """Whole windows of the picture, 8 places each way and two orientations, all as likely."""
    found = views(PICTURE, blank(SIZE), CROP, PLAIN, 4000)
    corners = {}
    for view in found:
        flipped = view[0, 0, 1] > view[0, 1, 1]
        upright = view[:, ::-1] if flipped else view
        top, left = upright[0, 0, :2].astype(int)
        np.testing.assert_array_equal(upright, PICTURE[top : top + CROP, left : left + CROP])
        corners[top, left, flipped] = corners.get((top, left, flipped), 0) + 1
    assert {place[:2] for place in corners} == {(i, j) for i in range(8) for j in range(8)}
    assert sum(n for (*_, flipped), n in corners.items() if flipped) == pytest.approx(2000, abs=150)
    assert len(corners) == 128
    assert max(corners.values()) < 70  # 31 on average


def test_the_papers_factor() -> None:
    """256 and 224: 32 places each way, which with the flip makes 2048."""
    picture = np.stack([*np.mgrid[:256, :256], np.zeros((256, 256))], axis=-1).astype(np.uint8)
    corners = views(picture, blank(256), 224, dataclasses.replace(PLAIN, flip=False), 400)[:, 0, 0, :2]
    assert (corners.min(), corners.max()) == (0, 31)


def test_the_mean_moves_with_the_crop() -> None:
    """Section 2 subtracts the mean of each pixel, so where the crop lies does not matter."""
    looks = pixels_of(PICTURE.astype(float), np.eye(3), PLAIN)
    assert not views(PICTURE, looks, CROP, PLAIN, 50).any()


@pytest.mark.parametrize("unit", ["root_eigenvalue", "eigenvalue"])
def test_colour_noise(unit: str) -> None:
    """One draw a picture, the same at each pixel; covariance E diag((0.1 u)^2) E^T."""
    factor = np.random.default_rng(0).normal(0, 3, (3, 3))
    covariance = factor @ factor.T
    config = dataclasses.replace(PLAIN, flip=False, colour_noise=0.1, colour_unit=unit)
    looks = pixels_of(np.zeros((1, 1, 3)), covariance, config)
    draws = views(np.zeros((1, 1, 3), np.uint8), looks, 1, config, 20000).reshape(-1, 3)
    values, vectors = np.linalg.eigh(covariance)
    power = values if unit == "root_eigenvalue" else values**2
    wanted = 0.01 * (vectors * power) @ vectors.T
    np.testing.assert_allclose(np.cov(draws.T), wanted, atol=0.03 * np.abs(wanted).max())
    assert np.abs(draws.mean(axis=0)).max() < 4 * np.sqrt(wanted.max() / len(draws))
    wide = pixels_of(np.zeros((4, 4, 3)), covariance, config)
    one = views(np.zeros((4, 4, 3), np.uint8), wide, 4, config, 1)[0]
    assert np.ptp(one, axis=(0, 1)).max() == 0
    assert one.any()


def test_the_ten_views() -> None:
    """Section 4.1: four corners and the centre, and their mirror images."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)
    mean = rng.uniform(0, 255, (256, 256, 3)).astype(np.float32)
    found = np.asarray(fixed_views(pictures, pixels_of(mean, np.eye(3), PLAIN), 224, 10, PLAIN))
    centred = pictures - mean
    for i, (top, left) in enumerate([(0, 0), (0, 32), (16, 16), (32, 0), (32, 32)]):
        window = centred[:, top : top + 224, left : left + 224]
        np.testing.assert_allclose(found[i], window, atol=1e-4)
        np.testing.assert_allclose(found[i + 5], window[:, :, ::-1], atol=1e-4)
    centre = np.asarray(fixed_views(pictures, pixels_of(mean, np.eye(3), PLAIN), 224, 1, PLAIN))
    np.testing.assert_array_equal(centre[0], found[2])


def test_the_nine_views() -> None:
    """32 and 24 pixels: offsets 0, 4 and 8 each way, not mirrored."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    mean = rng.uniform(0, 255, (32, 32, 3)).astype(np.float32)
    found = np.asarray(fixed_views(pictures, pixels_of(mean, np.eye(3), PLAIN), 24, 9, PLAIN))
    assert len(found) == 9
    centred = pictures - mean
    for view, (top, left) in zip(found, [(i, j) for i in (0, 4, 8) for j in (0, 4, 8)], strict=True):
        np.testing.assert_allclose(view, centred[:, top : top + 24, left : left + 24], atol=1e-4)


def test_the_sources_crops() -> None:
    """33 x 33 places and a flip, one draw for every 32 pictures side by side: 2178 ways."""
    config = dataclasses.replace(PLAIN, shared_by=32, last_offset=True)
    picture = np.stack([*np.mgrid[:256, :256], np.zeros((256, 256))], axis=-1).astype(np.uint8)
    corners = views(picture, blank(256), 224, config, 100)[:, [0, 0], [0, 1], :2].reshape(100, 4)
    for first in (0, 32, 64, 96):
        assert np.ptp(corners[first : first + 32], axis=0).max() == 0
    assert len({tuple(corner) for corner in corners}) == 4
    alone = dataclasses.replace(config, shared_by=1)
    places = views(picture[:40, :40], blank(40), 8, alone, 4000)[:, 0]
    upright = places[places[:, 0, 1] < places[:, 1, 1]]
    assert (upright[:, 0, :2].min(), upright[:, 0, :2].max()) == (0, 32)
    assert len({tuple(view) for view in places[:, :2, :2].reshape(-1, 4)}) > 0.8 * min(2178, 4000 * 0.84)


def test_the_sources_mean_stays_in_the_middle() -> None:
    looks = pixels_of(PICTURE.astype(float), np.eye(3), PLAIN)
    config = dataclasses.replace(PLAIN, flip=False, mean="centre")
    found = views(PICTURE, looks, CROP, config, 50)
    offsets = found[:, 0, 0, :2]  # how far the crop lies from the middle
    assert np.ptp(found, axis=(1, 2)).max() == 0
    assert set(offsets.ravel()) == set(range(-4, 4))
    corner = np.asarray(fixed_views(PICTURE[None], looks, CROP, 10, config))[0, 0]
    np.testing.assert_array_equal(corner[..., :2], np.full((CROP, CROP, 2), -4))


def test_the_sources_mean_is_not_mirrored() -> None:
    """It comes off after the flip, from crops and from the five mirrored views."""
    looks = pixels_of(PICTURE.astype(float), np.eye(3), PLAIN)
    config = dataclasses.replace(PLAIN, mean="centre")
    middle = PICTURE[4:-4, 4:-4].astype(float)
    crops = {window.tobytes() for window in views(PICTURE, looks, CROP, config, 200) + middle}
    wanted = [PICTURE[i : i + CROP, j : j + CROP] for i in range(8) for j in range(8)]
    wanted = {w.astype(np.float64).tobytes() for upright in wanted for w in (upright, upright[:, ::-1])}
    assert crops <= wanted and len(crops) > 64
    found = np.asarray(fixed_views(PICTURE[None], looks, CROP, 10, config))[:, 0] + middle
    np.testing.assert_array_equal(found[5:], found[:5, :, ::-1])


def test_the_source_divides_while_there_is_noise() -> None:
    """(view + noise) / 1.1, and neither once the noise has ended."""
    config = dataclasses.replace(PLAIN, flip=False, colour_noise=0.1, colour_divides=True)
    looks = pixels_of(np.zeros((SIZE, SIZE, 3)), 100 * np.eye(3), config)
    plain = dataclasses.replace(config, colour_divides=False)
    noisy = views(PICTURE, looks, CROP, plain, 5)
    np.testing.assert_allclose(views(PICTURE, looks, CROP, config, 5), noisy / 1.1, rtol=1e-6)
    still = views(PICTURE, looks, CROP, config, 5, strength=0)
    assert not np.any(still % 1) and np.all(np.any(still != noisy, axis=(1, 2, 3)))
