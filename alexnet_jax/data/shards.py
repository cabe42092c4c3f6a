"""A file of a packed set, written by one process, with notes by which packing resumes."""

import hashlib
import json
import os
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from etils import epath

from alexnet_jax.data.packed import MAKING, picture_bytes
from alexnet_jax.data.pictures import read_square
from alexnet_jax.data.sources import TRAIN, Part, Picture
from alexnet_jax.data.squares import BadPicture
from alexnet_jax.data.statistics import PixelSums

# One picture a group: a random read decodes one picture. Uncompressed: pixels and JPEGs barely compress.
WRITER = "group_size:1,uncompressed"


@dataclass(frozen=True)
class PackedForm:
    """The size and encoding of packed pictures."""

    size: int
    encoding: str  # "raw" or "jpeg"
    quality: int = 95  # of JPEGs

    @property
    def picture_bytes(self) -> float:
        """About what a picture takes."""
        return picture_bytes(self.size, self.encoding)

    @property
    def words(self) -> str:
        quality = f", quality {self.quality}" if self.encoding == "jpeg" else ""
        return f"{self.encoding}{quality}, {self.size} x {self.size}"

    def features(self, class_names: Sequence[str]) -> tfds.features.FeaturesDict:
        """The columns of a row."""
        shape = (self.size, self.size, 3)
        if self.encoding == "jpeg":
            image = tfds.features.Image(shape=shape, encoding_format="jpeg")
        else:
            image = tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding=tfds.features.Encoding.BYTES)
        label = tfds.features.ClassLabel(names=list(class_names))
        return tfds.features.FeaturesDict({"image": image, "label": label, "file_name": tfds.features.Text()})


@dataclass(frozen=True)
class Shard:
    """Source pictures `first` to `last` of a split, to be one file of a packed set."""

    folder: str
    file_name: str
    split: str
    first: int
    last: int

    @property
    def path(self) -> epath.Path:
        return epath.Path(self.folder) / self.file_name

    @property
    def notes_path(self) -> epath.Path:
        return epath.Path(self.folder) / MAKING / f"{self.file_name}.npz"


@dataclass
class Notes:
    """The facts of a shard once it is written."""

    rows: int
    digest: str
    bad: list[dict[str, str]]  # pictures left out, and why
    converted: dict[str, int]  # pictures that were no RGB JPEGs, by kind
    sums: PixelSums | None  # of training pictures

    def save(self, path: epath.Path) -> None:
        facts = {"rows": self.rows, "digest": self.digest, "bad": self.bad, "converted": self.converted}
        arrays = {"total": self.sums.total, "products": self.sums.products} if self.sums else {}
        with replacing(path) as local, local.open("wb") as file:
            np.savez(file, facts=np.array(json.dumps(facts)), **arrays)

    @classmethod
    def load(cls, path: epath.Path) -> "Notes":
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            facts = json.loads(str(arrays["facts"]))
            if "total" not in arrays:
                return cls(**facts, sums=None)
            sums = PixelSums(len(arrays["total"]))
            sums.pictures, sums.total, sums.products = facts["rows"], arrays["total"], arrays["products"]
            return cls(**facts, sums=sums)


class RowDigest:
    """A digest of the rows of a file, in order: a hash of CRCs takes a quarter of the time."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def update(self, row: bytes) -> None:
        self._hash.update(zlib.crc32(row).to_bytes(4, "little"))

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def write_shard(shard: Shard, part: Part, form: PackedForm) -> Iterator[int | dict[str, str]]:
    """Writes a shard and then its notes; yields 1 for each picture, and what is known of those left out."""
    notes = Notes(0, "", [], {}, PixelSums(form.size) if shard.split == TRAIN else None)
    digest, converted = RowDigest(), Counter()
    with replacing(shard.path) as local, _writer(os.fspath(local)) as writer:
        for picture in part:
            try:
                square, kind = _square(picture, form.size)
            except BadPicture as error:
                notes.bad.append({"split": shard.split, "file_name": picture.file_name, "why": str(error)})
                yield notes.bad[-1]
            else:
                converted.update([kind] if kind else [])
                row = _row(picture, square, form)
                writer.write(row)
                digest.update(row)
                notes.rows += 1
                if notes.sums is not None:
                    notes.sums.add(square)
            yield 1
    notes.digest, notes.converted = digest.hexdigest(), dict(converted)
    notes.save(shard.notes_path)


def read_shard(path: epath.Path) -> Iterator[bytes]:
    """The rows of a file, one after the other."""
    reader = ArrayRecordReader(os.fspath(path))
    try:
        for first in range(0, reader.num_records(), 64):
            yield from reader.read(first, min(first + 64, reader.num_records()))
    finally:
        reader.close()


@contextmanager
def _writer(path: str) -> Iterator[ArrayRecordWriter]:
    try:
        writer = ArrayRecordWriter(path, WRITER)
        try:
            yield writer
        finally:
            writer.close()
    except RuntimeError as error:  # its way to say that a disk is full
        raise OSError(str(error)) from error


@contextmanager
def replacing(path: epath.Path) -> Iterator[Path]:
    """A local file to write, which then takes the place of `path` at once, on whatever store that is."""
    remote = "://" in os.fspath(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=None if remote else os.fspath(path.parent))
    os.close(handle)
    local = Path(name)
    try:
        yield local
        local.chmod(0o644)
        if remote:
            epath.Path(local).copy(path, overwrite=True)
        else:
            local.replace(path)
    finally:
        local.unlink(missing_ok=True)


def _square(picture: Picture, size: int) -> tuple[np.ndarray, str | None]:
    if picture.label < 0:
        raise BadPicture("it has no label")
    square, kind = read_square(picture.encoded, size)
    # Whole data sets are PNGs; what calls itself a JPEG and is none was converted.
    if kind == "PNG" and not picture.file_name.lower().endswith((".jpeg", ".jpg")):
        kind = None
    return square, kind


def _row(picture: Picture, square: np.ndarray, form: PackedForm) -> bytes:
    """A row as TFDS would write it, but always in the same order: TFDS's differs from process to process."""
    if form.encoding == "jpeg":
        content = tf.io.encode_jpeg(square, quality=form.quality).numpy()
    else:
        content = square.tobytes()
    example = tf.train.Example()
    columns = example.features.feature
    columns["image"].bytes_list.value.append(content)
    columns["label"].int64_list.value.append(picture.label)
    columns["file_name"].bytes_list.value.append(picture.file_name.encode())
    return example.SerializeToString(deterministic=True)
