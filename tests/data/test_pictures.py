"""From encoded pictures to squares: resized as others do, mended where that is right, refused where not."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data.pictures import BadPicture, centre_square, read_square
from tests.data.images import encoded, huge_header, photo


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
