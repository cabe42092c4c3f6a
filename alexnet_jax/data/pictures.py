"""From an encoded picture to the square that is packed (section 2): read, mended, shrunk, cut.

One picture at a time, so that one that cannot be read is told apart from its neighbours.
"""

import functools
import math
import struct

import numpy as np
import tensorflow as tf
from scipy.sparse import csr_array

MOST_PIXELS = 2**27  # a header that claims more is a bomb, or broken
LEAST_SIDE = 8  # nothing can be seen in less
JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


class BadPicture(Exception):
    """A picture that cannot be used, and why."""


def read_square(encoded: bytes, size: int) -> tuple[np.ndarray, str | None]:
    """u8[size, size, 3], and what it is if not an RGB JPEG: "CMYK", "grey" or "PNG"."""
    height, width, kind = _look(encoded)
    if height * width > MOST_PIXELS:
        raise BadPicture(f"{width} x {height} pixels, more than {MOST_PIXELS}")
    if min(height, width) < LEAST_SIDE:
        raise BadPicture(f"{width} x {height} pixels, a side below {LEAST_SIDE}")
    read = tf.io.decode_png if kind == "PNG" else tf.io.decode_jpeg
    try:
        image = read(encoded, channels=3).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise BadPicture("damaged or cut short") from error
    return centre_square(image, size), kind


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
    grown = tf.image.resize(image, (tall, wide), method="bicubic").numpy()
    return np.clip(np.rint(grown[top : top + size, left : left + size]), 0, 255).astype(np.uint8)


def _look(encoded: bytes) -> tuple[int, int, str | None]:
    """Height, width and kind, from the header alone."""
    if encoded.startswith(PNG) and len(encoded) >= 24:
        width, height = struct.unpack(">II", encoded[16:24])
        return height, width, "PNG"
    if not encoded.startswith(JPEG):
        raise BadPicture("neither JPEG nor PNG" if encoded else "empty")
    try:
        height, width, channels = tf.io.extract_jpeg_shape(encoded).numpy().tolist()
    except tf.errors.InvalidArgumentError as error:
        raise BadPicture("its header cannot be read") from error
    return height, width, {1: "grey", 4: "CMYK"}.get(channels)


def _shrink(image: np.ndarray, scaled: tuple[int, int], corner: tuple[int, int], size: int) -> np.ndarray:
    """The window of `size` at `corner` of the picture as it would be when averaged to `scaled`.

    Only what lies behind the window is averaged, side by side, by sparse products: half the time of
    TensorFlow's own area averaging, and the same numbers but for their rounding.
    """
    (height, width), (tall, wide), (top, left) = image.shape[:2], scaled, corner
    first, last = left * width // wide, math.ceil((left + size) * width / wide)
    down = _averages(height, tall, top, size)
    across = _averages(width, wide, left, size)[:, first:last]
    lines = (down @ image[:, first:last].reshape(height, -1).astype(np.float32)).reshape(size, -1, 3)
    columns = across @ lines.transpose(1, 0, 2).reshape(last - first, -1)
    return np.rint(columns.reshape(size, size, 3).transpose(1, 0, 2)).astype(np.uint8)


@functools.lru_cache(maxsize=1024)
def _averages(length: int, scaled: int, first: int, count: int) -> csr_array:
    """Rows of weights: what each of `length` pixels adds to pixels `first` on of `scaled`."""
    edges = np.arange(first, first + count + 1) * (length / scaled)
    pixels = np.arange(length)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.maximum(covered, 0)
    return csr_array((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))
