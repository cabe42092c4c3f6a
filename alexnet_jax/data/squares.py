"""Cuts a decoded picture to the square that is packed (section 2): shrunk or grown, never warped.

Only what lies behind the square is computed: of a picture that is long and narrow the rest may be much.
"""

import functools
import math

import cv2
import numpy as np
from scipy.sparse import csr_array

MOST_PIXELS = 2**27  # a header that claims more is a bomb, or broken
BAND = 64  # rows that are shrunk at once: what they take stays in a core's cache


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
    top, left = (height - shorter) // 2, (width - shorter) // 2
    square = image[top : top + shorter, left : left + shorter]
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_CUBIC)


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
    """The source pixels, of `length`, under pixels `first` on of `scaled`, and their weights."""
    edges = np.arange(first, first + count + 1) * (length / scaled)
    behind = slice(int(edges[0]), min(math.ceil(edges[-1]), length))
    pixels = np.arange(length)[behind]
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.maximum(covered, 0)
    return behind, csr_array((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))
