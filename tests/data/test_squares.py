"""From pictures to squares: shrunk and grown as others do, and no more of them than is seen."""

import cv2
import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data.squares import centre_square
from tests.data.images import photo


@pytest.mark.parametrize("shape", [(216, 324), (324, 216), (216, 216)])
def test_shrinking_averages_blocks(shape: tuple[int, int]) -> None:
    """Shorter side to a third, never warped, central square: the mean of each 3 x 3 block."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    height, width = (side // 3 for side in shape)
    small = image.reshape(height, 3, width, 3, 3).mean(axis=(1, 3))
    top, left = (height - 72) // 2, (width - 72) // 2
    wanted = small[top : top + 72, left : left + 72]
    assert np.abs(centre_square(image, 72) - wanted).max() <= 0.5 + 1e-4


def test_shrinking_against_others() -> None:
    """Twenty photographs of all shapes against the area averages of OpenCV, and of Pillow, whose boxes have
    whole pixels: it takes or leaves those at their edges.
    """
    rng = np.random.default_rng(0)
    differences: dict[str, list[np.ndarray]] = {"OpenCV": [], "Pillow": []}
    for seed in range(20):
        height, width = rng.integers(257, 900, 2)
        image = photo(seed, height, width)
        shorter = min(height, width)
        tall, wide = round(height * 256 / shorter), round(width * 256 / shorter)
        top, left = (tall - 256) // 2, (wide - 256) // 2
        window = np.s_[top : top + 256, left : left + 256]
        found = centre_square(image, 256).astype(float)
        opencv = cv2.resize(image, (wide, tall), interpolation=cv2.INTER_AREA)
        pillow = np.asarray(Image.fromarray(image).resize((wide, tall), Image.Resampling.BOX))
        differences["OpenCV"].append(np.abs(found - opencv[window]))
        differences["Pillow"].append(np.abs(found - pillow[window]))
    for name, found in differences.items():
        means = [picture.mean() for picture in found]
        print(f"{name}: {np.mean(means):.3f} grey levels, at most {max(means):.3f} in a picture")
    assert np.mean(differences["OpenCV"]) < 0.05 and np.max(differences["OpenCV"]) <= 1
    assert np.mean(differences["Pillow"]) < 1.5


def test_growing_keeps_the_shape_of_things() -> None:
    """A ramp stays a ramp: what is enlarged is interpolated, from the same central square."""
    ramp = np.tile(np.linspace(0, 255, 60)[:, None, None], (1, 40, 3)).astype(np.uint8)
    grown = centre_square(ramp, 72).astype(float)
    assert grown.shape == (72, 72, 3)
    assert np.all(np.diff(grown[:, 0, 0]) >= 0)
    assert grown[0, 0, 0] == pytest.approx(255 / 6, abs=6)
    assert grown[-1, 0, 0] == pytest.approx(255 * 5 / 6, abs=6)


def test_growing_against_opencv() -> None:
    """Square pictures, every bit: as the authors grew theirs."""
    rng = np.random.default_rng(0)
    for side in (1, 2, 17, 60):
        image = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        wanted = cv2.resize(image, (72, 72), interpolation=cv2.INTER_CUBIC)
        np.testing.assert_array_equal(centre_square(image, 72), wanted)


def test_a_line_of_a_million_pixels() -> None:
    """Its middle and no more; the whole of it, grown, would take 200 GB."""
    line = np.zeros((1, 1_000_000, 3), np.uint8)
    line[:, 499_999] = 200
    assert (centre_square(line, 256) == 200).all()
