"""An archive in CIFAR-10's binary format with toyshapes for pictures, which TFDS's own builder reads.

TFDS looks for what it has downloaded by name. Found under the name of the genuine archive, this one passes
for it, in one TFDS folder: keep that folder for it alone.
"""

import io
import tarfile
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core.download.resource import get_dl_fname, write_info_file

from alexnet_jax.data.squares import centre_square
from alexnet_jax.data.toyshapes import TEN, draw_picture

SIDE, BATCHES = 32, 5
SHINE = 0.35  # of it; so the nets take hundreds of steps
FOLDER = "cifar-10-batches-bin"


def write_archive(path: epath.Path, train: int, test: int) -> None:
    """Five files to train and one to test, each picture a byte of label and 3072 of pixels; and the names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for i in range(BATCHES):
            numbers = range(train * i // BATCHES, train * (i + 1) // BATCHES)
            _add(tar, f"data_batch_{i + 1}.bin", _rows("train", numbers))
        _add(tar, "test_batch.bin", _rows("validation", range(test)))
        _add(tar, "batches.meta.txt", "".join(f"{name}\n" for name in TEN.class_names).encode())


def place_archive(tfds_dir: Path, train: int, test: int) -> None:
    """Writes it where TFDS, told to use `tfds_dir`, keeps the archive of CIFAR-10."""
    builder = tfds.builder("cifar10", data_dir=tfds_dir)
    [(url, known)] = builder.url_infos.items()
    path = epath.Path(tfds_dir) / "downloads" / builder.name / get_dl_fname(url, known.checksum)
    write_archive(path, train, test)
    write_info_file(url, path, builder.name, original_fname=known.filename, url_info=known)


def picture(split: str, number: int) -> np.ndarray:
    """A toyshape through which another shines, of any class, shrunk: u8[32, 32, 3]."""
    other = np.random.default_rng([TEN.seeds[split], number]).integers(1 << 30)
    shapes = draw_picture(TEN.seeds[split], number), draw_picture(TEN.seeds[split] + 1, other)
    front, behind = (centre_square(shape, SIDE) / 255 for shape in shapes)
    return (255 * ((1 - SHINE) * front + SHINE * behind)).astype(np.uint8)


def _rows(split: str, numbers: range) -> bytes:
    """Rows of a batch: a label, then the red, the green and the blue plane."""
    labels = (bytes([number % len(TEN.class_names)]) for number in numbers)
    planes = (picture(split, number).transpose(2, 0, 1).tobytes() for number in numbers)
    return b"".join(part for row in zip(labels, planes, strict=True) for part in row)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(f"{FOLDER}/{name}")
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
