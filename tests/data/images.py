"""Pictures as people hold them: photographs of many sizes, and what goes wrong with files."""

import io
import struct
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SYNSETS = ("n01440764", "n02119789", "n03445777")
SIZES = ((120, 160), (160, 120), (300, 300), (90, 400), (500, 375), (64, 64))


def photo(seed: int, height: int, width: int) -> np.ndarray:
    """Blotches of every size, as photographs have, and a camera's grain of 3 grey levels."""
    rng = np.random.default_rng(seed)
    picture = rng.normal(120, 3, (height, width, 3))
    for cells in (2, 5, 11, 23):
        shades = rng.uniform(0, 255, (cells, cells, 3)).astype(np.uint8)
        large = Image.fromarray(shades).resize((width, height), Image.Resampling.BICUBIC)
        picture += (np.asarray(large, float) - 127.5) / 2
    return picture.clip(0, 255).astype(np.uint8)


def encoded(picture: np.ndarray, kind: str = "JPEG", mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    quality = {"quality": 92} if kind == "JPEG" else {}
    Image.fromarray(picture).convert(mode).save(file, kind, **quality, **options)
    return file.getvalue()


def huge_header() -> bytes:
    """A JPEG that says that it has 20000 x 20000 pixels."""
    small = bytearray(encoded(photo(0, 64, 64)))
    place = small.index(b"\xff\xc0")
    small[place + 5 : place + 9] = struct.pack(">HH", 20000, 20000)
    return bytes(small)


def imagenet_pictures(split: str, each: int) -> Iterator[tuple[str, str, bytes]]:
    """(synset, file name, content): `each` for each of three synsets, one CMYK and one PNG among them."""
    for label, synset in enumerate(SYNSETS):
        for i in range(each):
            number = label * each + i
            picture = photo(number + (split == "train") * 1000, *SIZES[number % len(SIZES)])
            kind, mode = "JPEG", "RGB"
            if number == 1:
                mode = "CMYK"
            elif number == 2:
                kind = "PNG"
            elif number == 4:
                mode = "L"
            yield synset, f"{synset}_{number}.JPEG", encoded(picture, kind, mode)


def write_archives(folder: Path, train_each: int, validation: int) -> None:
    """ImageNet's two archives in small: a tar of tars with real synset names, and a flat one."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = list(imagenet_pictures("train", train_each))
    inner = [(f"{synset}.tar", archive((n, c) for s, n, c in pictures if s == synset)) for synset in SYNSETS]
    (folder / "ILSVRC2012_img_train.tar").write_bytes(archive(inner))
    (folder / "ILSVRC2012_img_val.tar").write_bytes(archive(validation_pictures(validation)))


def write_folders(folder: Path, train_each: int, validation: int) -> None:
    """The same pictures as most people hold them: class folders to train, and a flat folder to validate."""
    for synset, name, content in imagenet_pictures("train", train_each):
        path = folder / "train" / synset / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "val").mkdir()
    for name, content in validation_pictures(validation):
        (folder / "val" / name).write_bytes(content)


def validation_pictures(count: int) -> Iterator[tuple[str, bytes]]:
    for number in range(1, count + 1):
        picture = photo(5000 + number, *SIZES[number % len(SIZES)])
        yield f"ILSVRC2012_val_{number:08d}.JPEG", encoded(picture)


def archive(files: Iterable[tuple[str, bytes]]) -> bytes:
    """A tar of files by name."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return whole.getvalue()
