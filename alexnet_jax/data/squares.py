"""From a decoded picture to the square that is packed (section 2): never warped, shrunk or grown, cut.

Only what lies behind the square is computed: of a picture that is long and narrow the rest may be much.
"""

import functools
import math

import cv2
import numpy as np
from scipy.sparse import csr_array

MOST_PIXELS = 2**27  # a header that claims more is a bomb, or broken
BAND = 64  # rows that are shrunk at once: what they take stays in a core's cache
STEPS = 1024  # between two pixels, at which TensorFlow has tabulated its cubic weights
EXACT = 2**24  # pixels of a row, as far as float32 counts them one by one


class BadPicture(Exception):
    """A picture that cannot be used, and why."""


def centre_square(image: np.ndarray, size: int) -> np.ndarray:
    """The shorter side to `size`, never warped, and the central square: u8[size, size, 3]."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    tall, wide = round(height * size / shorter), round(width * size / shorter)
    top, left = (tall - size) // 2, (wide - size) // 2
    if shorter > size:  # area averaging to shrink and cubic to grow, as the authors did
        return _shrink(image, (tall, wide), (top, left), size)
    if shorter == size:
        return np.ascontiguousarray(image[top : top + size, left : left + size])
    return _grow(image, (tall, wide), (top, left), size)


def _shrink(image: np.ndarray, scaled: tuple[int, int], corner: tuple[int, int], size: int) -> np.ndarray:
    """The window of `size` at `corner` of the picture as it would be when averaged to `scaled`.

    Only what lies behind the window is averaged, down and then across, by sparse products, a band at a time:
    a fraction of the time of TensorFlow's own area averaging, and the same numbers but for their rounding.
    """
    (height, width), (tall, wide), (top, left) = image.shape[:2], scaled, corner
    columns, across = _averages(width, wide, left, size)
    square = np.empty((size, size, 3), np.uint8)
    for first in range(0, size, BAND):
        band = square[first : first + BAND]
        rows, down = _averages(height, tall, top + first, len(band))
        pixels = image[rows, columns].astype(np.float32)
        lines = (down @ pixels.reshape(len(pixels), -1)).reshape(len(band), -1, 3)
        # OpenCV turns pictures many times as fast as NumPy copies their transposes.
        turned = cv2.transpose(lines)
        turned = (across @ turned.reshape(len(turned), -1)).reshape(size, -1, 3)
        cv2.convertScaleAbs(cv2.transpose(turned), band)  # rounds
    return square


@functools.lru_cache(maxsize=4096)
def _averages(length: int, scaled: int, first: int, count: int) -> tuple[slice, csr_array]:
    """Which of `length` pixels lie behind pixels `first` on of `scaled`, and what they add to each."""
    edges = np.arange(first, first + count + 1) * (length / scaled)
    behind = slice(int(edges[0]), min(math.ceil(edges[-1]), length))
    pixels = np.arange(length)[behind]
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.maximum(covered, 0)
    return behind, csr_array((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))


def _grow(image: np.ndarray, scaled: tuple[int, int], corner: tuple[int, int], size: int) -> np.ndarray:
    """The same window of the picture as it would be when grown to `scaled`, down and then across.

    To the bit what TensorFlow's bicubic resizing gives, without the rest of the picture, or TensorFlow.
    """
    (height, width), (tall, wide), (top, left) = image.shape[:2], scaled, corner
    rows, down = _cubic(height, tall, top, size)
    columns, across = _cubic(width, wide, left, size)
    first = columns.min()
    pixels = image[:, first : columns.max() + 1]
    lines = sum(pixels[rows[:, i]] * down[:, i, None, None] for i in range(4))
    grown = sum(lines[:, columns[:, i] - first] * across[None, :, i, None] for i in range(4))
    return np.clip(np.rint(grown), 0, 255).astype(np.uint8, order="C")


def _cubic(length: int, scaled: int, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The four of `length` pixels around each of `scaled`, from `first` on, and their weights f32[count, 4].

    Keys' cubic kernel; where one of the four lies outside, the others share its weight.
    """
    real = np.float32 if scaled <= EXACT else np.float64
    half = real(0.5)
    places = (np.arange(first, first + count, dtype=real) + half) * (real(length) / real(scaled)) - half
    before = np.floor(places)
    near, far = _kernel()
    step = np.rint((places - before) * STEPS).astype(int)
    weights = np.stack([far[step], near[step], near[STEPS - step], far[STEPS - step]], axis=1)
    around = before.astype(int)[:, None] + np.arange(-1, 3)
    weights[(around < 0) | (around >= length)] = 0
    total = sum(weights[:, i] for i in range(4))  # in this order: sums of float32 depend on it
    return np.clip(around, 0, length - 1), weights * (1 / total)[:, None]


@functools.cache
def _kernel() -> tuple[np.ndarray, np.ndarray]:
    """Keys' kernel (a = -1/2) at distances from 0 to 1, and from 1 to 2."""
    near = np.arange(STEPS + 1) / STEPS
    far = near + 1
    return (
        ((1.5 * near - 2.5) * near * near + 1).astype(np.float32),
        (((-0.5 * far + 2.5) * far - 4) * far + 2).astype(np.float32),
    )
