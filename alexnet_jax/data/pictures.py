"""From an encoded picture to the square that is packed (section 2): read, mended, shrunk, cut.

One picture at a time, so that one that cannot be read is told apart from its neighbours.
"""

import contextlib
import functools
import math
import struct

import cv2
import numpy as np
import simplejpeg
import tensorflow as tf
from scipy.sparse import csr_array

MOST_PIXELS = 2**27  # a header that claims more is a bomb, or broken
LEAST_SIDE = 8  # nothing can be seen in less
BAND = 64  # rows that are shrunk at once: what they take stays in a core's cache
# As OpenCV and Pillow read them, to the bit; TensorFlow's default is a grey level off, and no faster.
decode_jpeg = functools.partial(tf.io.decode_jpeg, dct_method="INTEGER_ACCURATE")
JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the markers that a JPEG's size stands behind


class BadPicture(Exception):
    """A picture that cannot be used, and why."""


def read_square(encoded: bytes, size: int) -> tuple[np.ndarray, str | None]:
    """u8[size, size, 3], and what it is if not an RGB JPEG: "CMYK", "grey" or "PNG"."""
    height, width, kind = _look(encoded)
    if height * width > MOST_PIXELS:
        raise BadPicture(f"{width} x {height} pixels, more than {MOST_PIXELS}")
    if min(height, width) < LEAST_SIDE:
        raise BadPicture(f"{width} x {height} pixels, a side below {LEAST_SIDE}")
    return centre_square(_decode(encoded, kind), size), kind


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


def _decode(encoded: bytes, kind: str | None) -> np.ndarray:
    if kind is None:
        # The same pixels in four fifths of the time; what it finds fault with is for TensorFlow to judge.
        with contextlib.suppress(ValueError):
            return simplejpeg.decode_jpeg(encoded, "RGB", fastdct=False, fastupsample=False)
    read = tf.io.decode_png if kind == "PNG" else decode_jpeg
    try:
        return np.asarray(memoryview(read(encoded, channels=3)))  # .numpy() copies
    except tf.errors.InvalidArgumentError as error:
        raise BadPicture("damaged or cut short") from error


def _look(encoded: bytes) -> tuple[int, int, str | None]:
    """Height, width and kind, from the header alone."""
    if encoded.startswith(PNG) and len(encoded) >= 24:
        width, height = struct.unpack(">II", encoded[16:24])
        return height, width, "PNG"
    if not encoded.startswith(JPEG):
        raise BadPicture("neither JPEG nor PNG" if encoded else "empty")
    height, width, channels = _frame(encoded)
    return height, width, {1: "grey", 4: "CMYK"}.get(channels)


def _frame(encoded: bytes) -> tuple[int, int, int]:
    """Height, width and channels of a JPEG: from segment to segment, until one that starts a frame.

    TensorFlow reads them too, but in a tenth of the time that a whole picture takes.
    """
    at = 2
    while (at := encoded.find(b"\xff", at)) >= 0 and len(encoded) > at + 9:
        marker, length = struct.unpack_from(">BH", encoded, at + 1)
        if marker in FRAMES:
            return struct.unpack_from(">HHB", encoded, at + 5)
        at += 1 if marker in (0x00, 0xFF) else 2 + length  # what lies between segments is passed over
    raise BadPicture("its header cannot be read")


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
