"""Pictures as people hold them: read as `prepare` reads them where it does, and as they are meant."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from alexnet_jax.data.any_picture import read_any
from alexnet_jax.data.pictures import read_square
from alexnet_jax.data.squares import BadPicture, centre_square
from tests.data.images import encoded, huge_header, photo
from tests.data.test_pictures import variants

PHOTO = photo(3, 150, 200)
SIZES = (64, 150, 170)  # shrunk, as it is, grown


def read(content: bytes, size: int = 64) -> np.ndarray:
    found = read_any(io.BytesIO(content), size)
    assert (found.shape, found.dtype) == ((size, size, 3), np.uint8)
    return found


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("name", [*variants(), "CMYK", "16 bits", "palette", "large"])
def test_every_bit_that_would_be_packed(name: str) -> None:
    grey = np.random.default_rng(0).integers(0, 2**16, (150, 200), dtype=np.uint16)
    others = {
        "CMYK": encoded(PHOTO, mode="CMYK"),
        "16 bits": saved(Image.fromarray(grey), "PNG"),
        "palette": encoded(PHOTO, "PNG", "P"),
        "large": encoded(photo(4, 700, 900)),  # enough for Pillow to decode less of it, if it were asked
    }
    content = others.get(name) or variants()[name][0]
    for size in SIZES:
        np.testing.assert_array_equal(read(content, size), read_square(content, size)[0])


LOSSLESS = ("BMP", "DIB", "PCX", "PNG", "PPM", "SGI", "TGA", "TIFF", "WEBP")


@pytest.mark.parametrize("kind", LOSSLESS)
def test_other_formats(kind: str) -> None:
    picture = photo(3, 128, 140)
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(read(encoded(picture, kind, **options)), centre_square(picture, 64))


@pytest.mark.parametrize("kind", ["AVIF", "GIF", "JPEG2000"])
def test_formats_that_lose_a_little(kind: str) -> None:
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow has no {kind}")
    difference = np.abs(read(encoded(PHOTO, kind)) - centre_square(PHOTO, 64).astype(float))
    assert difference.mean() < 8


def over_white(alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return np.rint(PHOTO * share + 255 * (1 - share))


def test_what_is_transparent_is_laid_over_white() -> None:
    """RGBA and its grey sister in all shades, palettes and a key colour all or nothing."""
    alpha = np.tile(np.linspace(0, 255, 200).astype(np.uint8), (150, 1))
    rgba = Image.fromarray(np.dstack([PHOTO, alpha]))
    for kind in ("PNG", "TIFF", "TGA"):
        found = read(saved(rgba, kind), 150)
        assert np.abs(found - over_white(alpha)[:, 25:175]).max() <= 1
    grey = rgba.convert("LA")
    wanted = np.asarray(grey, float)[..., :1] * (alpha / 255)[..., None] + 255 - alpha[..., None]
    assert np.abs(read(saved(grey, "PNG"), 150) - wanted[:, 25:175]).max() <= 1
    palette = Image.fromarray(np.tile(np.repeat(np.uint8([0, 1]), 75), (150, 1)))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    for kind in ("PNG", "GIF"):
        found = read(saved(palette, kind, transparency=1), 150)
        assert (found[:, :75] == (10, 20, 30)).all() and (found[:, 75:] == 255).all()
    key = Image.fromarray(np.tile(np.repeat(np.uint8([[1, 2, 3], [4, 5, 6]]), 75, axis=0), (150, 1, 1)))
    found = read(saved(key, "PNG", transparency=(4, 5, 6)), 150)
    assert (found[:, :75] == (1, 2, 3)).all() and (found[:, 75:] == 255).all()


def test_sixteen_bits_are_scaled() -> None:
    """Grey and colours, of either byte order: white is white, and no level is more than one off."""
    levels = np.linspace(0, 65535, 150 * 150).astype(np.uint16).reshape(150, 150)
    wanted = (levels // 256)[..., None]
    files = [saved(Image.fromarray(levels), "PNG"), saved(Image.fromarray(levels), "TIFF")]
    files += [b"P5 150 150 65535\n" + levels.astype(">u2").tobytes()]
    files += [cv2.imencode(kind, np.dstack([levels] * 3))[1].tobytes() for kind in (".png", ".tiff")]
    big = bytearray(saved(Image.fromarray(levels), "TIFF"))
    files += [saved(Image.frombytes("I;16B", (150, 150), levels.astype(">u2").tobytes()), "TIFF")]
    assert big[:2] == b"II" and files[-1][:2] == b"MM"
    for content in files:
        found = read(content, 150)
        np.testing.assert_array_equal(found, np.broadcast_to(wanted, found.shape))
    with pytest.raises(BadPicture, match="its grey levels are not of 8 or 16 bits"):
        read(saved(Image.fromarray(levels.astype(np.float32)), "TIFF"))
    with pytest.raises(BadPicture, match="its grey levels are not of 8 or 16 bits"):
        read(saved(Image.fromarray(levels.astype(np.int32) * 2), "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (80, 80), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (read(content) == (255, 0, 0)).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_as_the_camera_was_held(kind: str) -> None:
    """All eight ways, each once only; the packed sets know none, as those who made them did not."""
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = saved(Image.fromarray(PHOTO), kind, exif=exif)
        with Image.open(io.BytesIO(content)) as image:
            wanted = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        assert wanted.shape[:2] == ((150, 200) if orientation < 5 else (200, 150))
        np.testing.assert_array_equal(read(content, 100), centre_square(wanted, 100))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")  # which a command does not print
def test_damaged_notes_do_not_cost_the_picture() -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(range(200))
    content = saved(Image.fromarray(PHOTO), "JPEG", exif=exif)
    np.testing.assert_array_equal(read(content), read_square(content, 64)[0])


def test_one_pixel() -> None:
    for kind in ("PNG", "GIF", "BMP", "JPEG"):
        found = read(encoded(np.full((1, 1, 3), 120, np.uint8), kind), 256)
        assert (found == found[0, 0]).all() and abs(int(found[0, 0, 0]) - 120) <= 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_large_one(kind: str) -> None:
    image = Image.new("RGB", (8000, 6000), "black")
    image.paste("white", (4000, 0, 8000, 6000))
    found = read(saved(image, kind), 256)
    assert (found[:, :126] == 0).all() and (found[:, 130:] == 255).all()


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I4s", 1000, b"IDAT") + bytes(1004)


GOOD = encoded(photo(0, 150, 200))
BAD = {
    "empty": (b"", "empty"),
    "text": (b"<html>404</html>", "no picture of a kind that can be read"),
    "a program": (encoded(photo(0, 9, 9), "EPS"), "no picture of a kind that can be read"),
    "cut": (GOOD[: len(GOOD) // 2], "damaged or cut short"),
    "cut PNG": (encoded(photo(0, 150, 200), "PNG")[:2000], "damaged or cut short"),
    "cut GIF": (encoded(photo(0, 150, 200), "GIF", "P")[:2000], "damaged or cut short"),
    "garbled": (GOOD[:700] + bytes(len(GOOD) - 700), "damaged or cut short"),
    "a bomb": (huge_header(), "400000000 pixels, more than 134217728"),
    "a little too large": (png_header(2**14, 2**13 + 1), "134234112 pixels, more than 134217728"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used(name: str) -> None:
    content, why = BAD[name]
    with pytest.raises(BadPicture, match=f"^{why}$"):
        read(content)
