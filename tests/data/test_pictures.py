"""From encoded pictures to squares: read as others do, mended where that is right, refused where not."""

import io

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data.pictures import read_square
from alexnet_jax.data.squares import BadPicture, centre_square
from tests.data.images import encoded, huge_header, photo


def as_pillow_reads_it(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def variants() -> dict[str, tuple[bytes, str | None]]:
    """Pictures as cameras and programs write them, and what each is if not an RGB JPEG."""
    picture = photo(3, 150, 200)
    exif = Image.Exif()
    exif[0x9286] = encoded(photo(4, 30, 40), mode="L")  # a JPEG in a segment before the picture's own header
    jpeg = encoded(picture)
    table = jpeg.index(b"\xff\xc4")
    after = table + 2 + int.from_bytes(jpeg[table + 2 : table + 4])
    return {
        "plain": (jpeg, None),
        "progressive": (encoded(picture, progressive=True), None),
        "all colours": (encoded(picture, subsampling=0), None),
        "EXIF": (encoded(picture, exif=exif), None),
        "fill bytes": (jpeg[:2] + b"\xff\xff" + jpeg[2:], None),
        "bytes too many": (jpeg[:-2] + bytes(35) + jpeg[-2:], None),
        "table first": (jpeg[:2] + jpeg[table:after] + jpeg[2:table] + jpeg[after:], None),
        "grey": (encoded(picture, mode="L"), "grey"),
        "PNG": (encoded(picture, "PNG"), "PNG"),
        "grey PNG": (encoded(picture, "PNG", "L"), "PNG"),
    }


@pytest.mark.parametrize("size", [64, 150])
@pytest.mark.parametrize("name", variants())
def test_every_bit_as_others_read_it(name: str, size: int) -> None:
    content, kind = variants()[name]
    square, found = read_square(content, size)
    assert found == kind
    np.testing.assert_array_equal(square, centre_square(as_pillow_reads_it(content), size))
    if size == 150:
        np.testing.assert_array_equal(square, as_pillow_reads_it(content)[:, 25:175])


def test_cmyk_is_turned_into_rgb() -> None:
    content = encoded(photo(3, 150, 200), mode="CMYK")
    square, name = read_square(content, 64)
    assert name == "CMYK"
    assert np.abs(square - centre_square(as_pillow_reads_it(content), 64).astype(float)).max() <= 1


GOOD = encoded(photo(0, 150, 200))
BAD = {
    "empty": (b"", "empty"),
    "text": (b"<html>404</html>", "neither JPEG nor PNG"),
    "cut": (GOOD[: len(GOOD) // 2], "damaged or cut short"),
    "cut in the header": (GOOD[:100], "its header cannot be read"),
    "garbled": (GOOD[:700] + bytes(len(GOOD) - 700), "damaged or cut short"),
    "cut PNG": (encoded(photo(0, 150, 200), "PNG")[:2000], "damaged or cut short"),
    "one pixel": (encoded(photo(0, 1, 1)), "1 x 1 pixels, a side below 8"),
    "a line": (encoded(photo(0, 300, 2)), "2 x 300 pixels, a side below 8"),
    "a bomb": (huge_header(), "20000 x 20000 pixels, more than 134217728"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used(name: str) -> None:
    content, why = BAD[name]
    with pytest.raises(BadPicture, match=why):
        read_square(content, 64)
