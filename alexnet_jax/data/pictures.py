"""Decodes a picture of a data set into the square that is packed, and converts grey, CMYK and PNG.

One picture at a time, so that one that cannot be read is told apart from its neighbours.
"""

import functools
import struct

import numpy as np
import tensorflow as tf

from alexnet_jax.data.squares import MOST_PIXELS, BadPicture, centre_square

LEAST_SIDE = 8  # nothing can be seen in less
# As OpenCV and Pillow read them, to the bit; TensorFlow's default is a grey level off, and no faster.
decode_jpeg = functools.partial(tf.io.decode_jpeg, dct_method="INTEGER_ACCURATE")
JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the markers that a JPEG's size stands behind


def read_square(encoded: bytes, size: int) -> tuple[np.ndarray, str | None]:
    """u8[size, size, 3], and what it is if not an RGB JPEG: "CMYK", "grey" or "PNG"."""
    height, width, kind = _look(encoded)
    if height * width > MOST_PIXELS:
        raise BadPicture(f"{width} x {height} pixels, more than {MOST_PIXELS}")
    if min(height, width) < LEAST_SIDE:
        raise BadPicture(f"{width} x {height} pixels, a side below {LEAST_SIDE}")
    return centre_square(_decode(encoded, kind), size), kind


def _decode(encoded: bytes, kind: str | None) -> np.ndarray:
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
