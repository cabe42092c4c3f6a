"""Sources of pictures: any TFDS data set, a folder of class folders, or toyshapes, which are drawn."""

import contextlib
import hashlib
import importlib
import itertools
import os
import re
import sys
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import requests
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import hashing

from alexnet_jax.data.archives import allow_open_files, check_archives, check_room
from alexnet_jax.data.packed import DRAWN
from alexnet_jax.data.toyshapes import SUBJECTS, Subjects, example_name, make_example
from alexnet_jax.errors import ConfigError, RefusedError
from alexnet_jax.text import first_line, nearest

TRAIN, VALIDATION = "train", "validation"
SPLITS = (TRAIN, VALIDATION)
# What others call the pictures that we validate on, the best first.
VALIDATION_NAMES = ("validation", "val", "valid", "test")
SUFFIXES = (".jpeg", ".jpg", ".png")
IMAGENET = "imagenet2012"


@dataclass(frozen=True)
class Picture:
    """A labelled picture, still encoded."""

    file_name: str
    label: int
    encoded: bytes


class Part(Protocol):
    """Some pictures of a split in their order; it can be sent to another process, and opens files there."""

    def __iter__(self) -> Iterator[Picture]: ...


class Source(Protocol):
    """Labelled pictures by number."""

    name: str
    origin: str  # for people: what it is and where it lies
    identity: str  # differs where the pictures do
    class_names: Sequence[str]
    counts: Mapping[str, int]  # of TRAIN and VALIDATION

    def part(self, split: str, first: int, last: int) -> Part: ...


class TfdsSource:
    """A TFDS data set whose files are in place, whatever their format."""

    def __init__(self, name: str, builder: tfds.core.DatasetBuilder):
        info = builder.info
        image = _only(name, info, tfds.features.Image)
        label = _only(name, info, tfds.features.ClassLabel)
        self.name, self.path = name, epath.Path(builder.data_path)
        self.origin, self.identity = f"TFDS {info.full_name} in {self.path}", info.full_name
        self.class_names = info.features[label].names
        self._keys = (image, label, "file_name" if "file_name" in info.features else None)
        held = {split: info.splits[split].num_examples for split in info.splits}
        validation = next((split for split in VALIDATION_NAMES if held.get(split)), None)
        if not held.get(TRAIN) or validation is None:
            there = ", ".join(f"{count} {split}" for split, count in held.items()) or "nothing"
            raise RefusedError(
                f"{self.origin} holds {there}: both train and validation (or test) pictures are needed; "
                f"delete that folder, and prepare it again from all of its archives"
            )
        self._splits = {TRAIN: TRAIN, VALIDATION: validation}
        self.counts = {split: held[theirs] for split, theirs in self._splits.items()}

    def part(self, split: str, first: int, last: int) -> "TfdsPart":
        return TfdsPart(os.fspath(self.path), self._splits[split], first, last, self._keys)


@dataclass(frozen=True)
class TfdsPart:
    """Pictures `first` to `last` of a TFDS data set."""

    path: str
    split: str
    first: int
    last: int
    keys: tuple[str, str, str | None]

    def __iter__(self) -> Iterator[Picture]:
        image, label, file_name = self.keys
        for number, example in enumerate(self._examples(image), self.first):
            name = example[file_name].decode() if file_name else f"{self.split}_{number:08d}"
            yield Picture(name, int(example[label]), example[image])

    def _examples(self, image: str) -> Iterator[dict[str, Any]]:
        builder = tfds.builder_from_directory(self.path)
        rows = tfds.core.ReadInstruction(self.split, from_=self.first, to=self.last, unit="abs")
        encoded = {image: tfds.decode.SkipDecoding()}
        if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
            yield from builder.as_data_source(split=rows, decoders=encoded)
            return
        in_order = tfds.ReadConfig(interleave_cycle_length=1, add_tfds_id=False)
        data = builder.as_dataset(split=rows, decoders=encoded, read_config=in_order)
        yield from data.as_numpy_iterator()


class FolderSource:
    """`train/CLASS/PICTURE` and `val/CLASS/PICTURE`; for ImageNet also the flat validation folder.

    The order is that in which TFDS would have written the same files, so that the rows are the same too.
    """

    def __init__(self, name: str, root: epath.Path):
        if not root.is_dir():
            raise RefusedError(f"there is no folder {root}")
        self.name, self.origin = name, f"folder {root}"
        folders = {TRAIN: root / "train", VALIDATION: _first_there(root, VALIDATION_NAMES)}
        missing = [split for split, folder in folders.items() if folder is None or not folder.is_dir()]
        if missing:
            above = f"; did you mean {root.parent}" if (root.parent / "train").is_dir() else ""
            raise RefusedError(
                f"{root} has no {' and no '.join(missing)} pictures: folders train and val (or validation, "
                f"valid, test) are needed, with a folder for each class{above}"
            )
        self.class_names = _class_names(name, folders[TRAIN])
        self._files = {split: _in_order(split, self._list(folder)) for split, folder in folders.items()}
        self.counts = {split: len(files) for split, files in self._files.items()}
        files = itertools.chain(*self._files.values())
        listing = repr([(_file_name(path), label) for path, label in files])
        self.identity = hashlib.blake2b(listing.encode(), digest_size=16).hexdigest()
        for split, folder in folders.items():
            if not self.counts[split]:
                flat = sum(file.suffix.lower() in SUFFIXES for file in folder.iterdir())
                also = (
                    f", and {flat} beside them: only imagenet2012 has a list of their classes" if flat else ""
                )
                raise RefusedError(
                    f"there are no {'/'.join(SUFFIXES)} files in the class folders of {folder}{also}"
                )

    def part(self, split: str, first: int, last: int) -> "FolderPart":
        return FolderPart(tuple(self._files[split][first:last]), self.name == IMAGENET)

    def _list(self, folder: epath.Path) -> list[tuple[str, int]]:
        """Each file's path, and its label."""
        labels = {name: label for label, name in enumerate(self.class_names)}
        listed = []
        for entry in sorted(folder.iterdir()):
            if entry.is_dir():
                if entry.name not in labels:
                    raise RefusedError(f"{entry} is none of the {len(labels)} classes of {self.name}")
                files = (file for file in entry.iterdir() if file.suffix.lower() in SUFFIXES)
                listed += [(os.fspath(file), labels[entry.name]) for file in files]
        if not listed and self.name == IMAGENET:
            listed = [(os.fspath(file), label) for file, label in _flat_imagenet(folder, labels)]
        return listed


@dataclass(frozen=True)
class FolderPart:
    """Some files, with their labels."""

    files: tuple[tuple[str, int], ...]
    imagenet: bool

    def __iter__(self) -> Iterator[Picture]:
        for path, label in self.files:
            name, encoded = _file_name(path), epath.Path(path).read_bytes()
            yield Picture(name, label, _as_tfds_keeps_it(name, encoded) if self.imagenet else encoded)


class DrawnSource:
    """Toyshapes, drawn as they are packed, in the order that TFDS would give them."""

    def __init__(self, name: str, subjects: Subjects):
        self.name, self.origin, self.identity = name, f"{name}, drawn", f"{name}/1.0.0"
        self.class_names, self.counts, self._subjects = subjects.class_names, subjects.sizes, subjects

    def part(self, split: str, first: int, last: int) -> "DrawnPart":
        files = [(example_name(split, index), index) for index in range(self.counts[split])]
        numbers = tuple(index for _, index in _in_order(split, files)[first:last])
        return DrawnPart(self.name, split, numbers)


@dataclass(frozen=True)
class DrawnPart:
    """Some pictures of a drawn set, by their numbers."""

    name: str
    split: str
    numbers: tuple[int, ...]

    def __iter__(self) -> Iterator[Picture]:
        for index in self.numbers:
            example = make_example(self.split, index, SUBJECTS[self.name])
            yield Picture(example["file_name"], example["label"], example["image"])


@dataclass(frozen=True)
class Making:
    """Settings for making a TFDS data set that is not there."""

    manual_dir: str = ""
    tfds_dir: str = ""
    archives: str = "sizes"  # how ImageNet's are checked
    share: int = 0  # of several hosts the first makes it
    packed: tuple[epath.Path, float] | None = None  # where its pictures will be packed, bytes each


def open_tfds(name: str, making: Making) -> TfdsSource:
    """A TFDS data set, made first where it is not there."""
    builder = _builder(name, making.tfds_dir)
    for kind in (tfds.features.Image, tfds.features.ClassLabel):
        _only(name, builder.info, kind)  # before it is made, which may take hours
    manual = Path(making.manual_dir).expanduser() if making.manual_dir else None
    if not builder.is_prepared() and making.share:
        _wait_for(name, making.tfds_dir)
        builder = _builder(name, making.tfds_dir)
    if not builder.is_prepared():
        if name == IMAGENET:
            check_archives(manual, making.archives)
            check_room(manual, epath.Path(builder.data_path), making.packed)
            allow_open_files()
        made_of = f"from {manual}" if manual else "as TFDS downloads it"
        print(f"tfds     making {builder.info.full_name} {made_of}, in {builder.data_path}", flush=True)
        for left in Path(builder.data_path).parent.glob("incomplete.*"):
            print(f"note     {left} is another's at work, or left by one that was killed: then delete it")
    return TfdsSource(name, prepare(builder, download_config=tfds.download.DownloadConfig(manual_dir=manual)))


def _builder(name: str, tfds_dir: str) -> tfds.core.DatasetBuilder:
    try:
        return tfds.builder(name, data_dir=tfds_dir or None)
    except tfds.core.DatasetNotFoundError as error:
        near = nearest(name, [*tfds.list_builders(), *DRAWN])
        raise ConfigError(f"TFDS knows no data set {name!r}; the nearest name is {near}") from error
    except Exception as error:  # of names that it cannot read, of versions that there are not
        raise ConfigError(f"TFDS has no data set {name!r}: {first_line(error)}") from error


def _wait_for(name: str, tfds_dir: str) -> None:
    """Waits until the first of several hosts has made the data set that all of them read."""
    print(f"tfds     waiting until the host with --shard=0/... has made {name}", flush=True)
    while not _builder(name, tfds_dir).is_prepared():
        time.sleep(2)


def prepare(builder: tfds.core.DatasetBuilder, **download: Any) -> tfds.core.DatasetBuilder:
    """Generates a builder's files where they are not there, without the paragraphs that TFDS prints."""
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            builder.download_and_prepare(**download)
    except requests.exceptions.ConnectionError as error:
        host = urllib.parse.urlsplit(error.request.url).hostname if error.request else "its host"
        raise RefusedError(
            f"TFDS cannot download {builder.info.full_name}: no connection to {host}"
        ) from error
    except Exception as error:  # each data set has its own
        raise RefusedError(f"TFDS could not make {builder.info.full_name}: {first_line(error)}") from error
    return builder


def _only(name: str, info: tfds.core.DatasetInfo, kind: type) -> str:
    """The key of the feature of a kind: the supervised one, else the only one."""
    keys = [key for key, feature in info.features.items() if isinstance(feature, kind)]
    supervised = [key for key in info.supervised_keys or () if key in keys]
    if len(supervised or keys) != 1:
        raise RefusedError(
            f"TFDS's {name} is no set of pictures with one label each: "
            f"it has {len(keys)} features of type {kind.__name__}"
        )
    return (supervised or keys)[0]


def _first_there(root: epath.Path, names: Sequence[str]) -> epath.Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _class_names(name: str, train: epath.Path) -> list[str]:
    """ImageNet's own list, which labels its flat validation folder too; else the folders of `train`."""
    if name == IMAGENET:
        return tfds.core.tfds_path("datasets/imagenet2012/labels.txt").read_text().split()
    return sorted(entry.name for entry in train.iterdir() if entry.is_dir())


def _flat_imagenet(folder: epath.Path, labels: Mapping[str, int]) -> Iterator[tuple[epath.Path, int]]:
    """ILSVRC2012's validation pictures in one folder, labelled by the list that TFDS ships."""
    synsets = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt").read_text().split()
    for file in folder.iterdir():
        number = re.fullmatch(r"ILSVRC2012_val_(\d{8})\.JPEG", file.name)
        if number and 1 <= int(number[1]) <= len(synsets):
            yield file, labels[synsets[int(number[1]) - 1]]


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]


def _in_order(split: str, files: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """TFDS shuffles a split by a hash of each example's key, which for ImageNet is the file's name."""
    hasher = hashing.Hasher(split)
    return sorted(files, key=lambda file: (hasher.hash_key(_file_name(file[0])), file[0]))


def _as_tfds_keeps_it(name: str, encoded: bytes) -> bytes:
    """TFDS re-encodes a few pictures of ImageNet before it stores them."""
    genuine = importlib.import_module(
        "tensorflow_datasets.datasets.imagenet2012.imagenet2012_dataset_builder"
    )
    if name in genuine.CMYK_IMAGES:
        return tfds.core.utils.jpeg_cmyk_to_rgb(encoded)
    if name in genuine.PNG_IMAGES:
        return tfds.core.utils.png_to_jpeg(encoded)
    return encoded
