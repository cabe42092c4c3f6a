"""A picture as people hold it, in any format that Pillow reads, to the square that `prepare` would pack.

What `read_square` takes gives the same bits here, without TensorFlow, but for what only people's own pictures
have: they are turned as their cameras say, and what is transparent is laid over white.
"""

import contextlib
import re
import threading
import warnings
from collections.abc import Callable
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from alexnet_jax.data.squares import MOST_PIXELS, BadPicture, centre_square

# Formats that are programs, which Ghostscript would run, or of which Pillow reads no more than the name.
UNREAD = {"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
LARGE = 2**24  # pixels; of threads that each decode more, one does so at a time
ORIENTATION = 0x0112  # EXIF
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x[:, ::-1].swapaxes(0, 1),
}

Image.preinit()  # the usual formats come first: what others are known by is less certain
Image.init()
FORMATS = [name for name in Image.ID if name not in UNREAD]
SUFFIXES = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}
Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # it warns of more, and refuses more than twice as many
warnings.filterwarnings("ignore", module=r"PIL\.")  # what it wonders at it reads for all that

_large = threading.Lock()


def read_any(file: BinaryIO, size: int) -> np.ndarray:
    """u8[size, size, 3] from an open file; threads may read one each."""
    image = _open(file)
    width, height = image.size
    with _large if width * height > LARGE else contextlib.nullcontext():
        try:
            image.load()  # whole: Pillow's draft mode is quicker for large JPEGs, but gives other bits
            pixels = _rgb(image)
        except BadPicture:
            raise
        except MemoryError as error:
            raise BadPicture(f"{width} x {height} pixels, for which there is no memory") from error
        except Exception as error:  # each of Pillow's formats has its own
            raise BadPicture("damaged or cut short") from error
        return centre_square(TURNS.get(_orientation(image), lambda x: x)(pixels), size)


def _open(file: BinaryIO) -> Image.Image:
    """A picture whose header alone is read."""
    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise BadPicture("no picture of a kind that can be read" if file.seek(0, 2) else "empty") from error
    except Image.DecompressionBombError as error:
        claimed = re.search(r"\d+", str(error))  # by its header
        raise BadPicture(
            f"{claimed[0] if claimed else 'far too many'} pixels, more than {MOST_PIXELS}"
        ) from error
    except Exception as error:
        raise BadPicture("its header cannot be read") from error


def _rgb(image: Image.Image) -> np.ndarray:
    """u8[height, width, 3] of the first frame."""
    if image.mode == "CMYK":  # Adobe's are stored inverted, which Pillow undoes
        light = 255 - np.asarray(image).astype(np.uint16)
        return (light[..., :3] * light[..., 3:] // 255).astype(np.uint8)
    if image.mode[0] in "IF":
        return np.repeat(_high_bytes(image)[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def _high_bytes(image: Image.Image) -> np.ndarray:
    """u8[height, width] of 16-bit grey levels, as others cut them; Pillow itself may take 255 for white."""
    levels = np.asarray(image)
    if image.mode == "F" or levels.min() < 0 or levels.max() > 0xFFFF:
        raise BadPicture("its grey levels are not of 8 or 16 bits: nothing says which is white")
    return (levels >> 8).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 is upright. Pillow turns TIFFs itself as it loads them, and then forgets it."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # notes that are damaged; the picture is not
        return 1
