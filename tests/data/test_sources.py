"""Any source of the same pictures gives the same packed rows."""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath

from alexnet_jax.data.archives import PUBLISHED, check_room
from alexnet_jax.data.packed import MARKER
from alexnet_jax.data.packing import Work, pack, plan_packing
from alexnet_jax.data.pictures import read_square
from alexnet_jax.data.shards import PackedForm
from alexnet_jax.data.sources import DrawnSource, FolderSource, Making, Source, TfdsSource, open_tfds, prepare
from alexnet_jax.data.toyshapes import TEN
from alexnet_jax.errors import ConfigError, RefusedError
from tests.data.builders import Toyshapes, ToyshapesConfig
from tests.data.images import SYNSETS, encoded, photo, write_archives, write_folders

FORM = PackedForm(48, "raw")
TRAIN_EACH, VALIDATION = 5, 7


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> TfdsSource:
    """The genuine builder on small archives."""
    root = tmp_path_factory.mktemp("archives")
    write_archives(root / "manual", TRAIN_EACH, VALIDATION)
    return open_tfds("imagenet2012", Making(str(root / "manual"), str(root / "tfds"), "any"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folders")
    write_folders(root, TRAIN_EACH, VALIDATION)
    return root


def packed(source: Source, path: Path) -> dict:
    """The facts of the packed set."""
    assert pack(plan_packing(source, FORM, epath.Path(path)), Work())
    return json.loads((path / MARKER).read_text())


def test_archives_and_folders_are_one(archives: TfdsSource, folders: Path, tmp_path: Path) -> None:
    one = packed(archives, tmp_path / "archives")
    two = packed(FolderSource("imagenet2012", epath.Path(folders)), tmp_path / "folders")
    assert one["digest"] == two["digest"]
    assert one["converted"] == two["converted"] == {"CMYK": 1, "PNG": 1, "grey": 1}
    assert {name: split["pictures"] for name, split in one["splits"].items()} == {
        "train": 3 * TRAIN_EACH,
        "validation": VALIDATION,
    }
    rows = tfds.builder_from_directory(tmp_path / "folders").as_data_source(split="train")
    names = tfds.builder_from_directory(tmp_path / "folders").info.features["label"].names
    assert len(names) == 1000
    for row in rows:
        synset, file_name = names[row["label"]], row["file_name"].decode()
        assert file_name.startswith(f"{synset}_")
        content = (folders / "train" / synset / file_name).read_bytes()
        np.testing.assert_array_equal(row["image"], read_square(content, FORM.size)[0])


def test_the_flat_folder_has_the_labels_of_the_list(archives: TfdsSource, folders: Path) -> None:
    """ILSVRC2012_val_00000001.JPEG is a sea snake, n01751748."""
    source = FolderSource("imagenet2012", epath.Path(folders))
    labels = {picture.file_name: picture.label for picture in source.part("validation", 0, VALIDATION)}
    assert source.class_names[labels["ILSVRC2012_val_00000001.JPEG"]] == "n01751748"
    theirs = {picture.file_name: picture.label for picture in archives.part("validation", 0, VALIDATION)}
    assert labels == theirs


def test_what_is_drawn(few: tfds.core.DatasetBuilder, tmp_path: Path) -> None:
    """Toyshapes come as TFDS gives them: the same pictures in the same order."""
    drawn = DrawnSource("toyshapes", dataclasses.replace(TEN, sizes={"train": 40, "validation": 20}))
    theirs = TfdsSource("toyshapes", few)
    assert packed(drawn, tmp_path / "one")["digest"] == packed(theirs, tmp_path / "two")["digest"]
    assert (list(drawn.class_names), drawn.counts) == (list(theirs.class_names), theirs.counts)
    part = drawn.part("train", 3, 20)
    assert list(part) == list(theirs.part("train", 3, 20)) and len(list(part)) == 17


def test_array_record_files_too(few: tfds.core.DatasetBuilder, tmp_path: Path) -> None:
    """A TFDS set in ArrayRecord files gives the rows that its TFRecord files give."""
    config = ToyshapesConfig("few", train_size=40, validation_size=20)
    converted = prepare(Toyshapes(data_dir=str(tmp_path), config=config, file_format="array_record"))
    assert converted.info.file_format == tfds.core.FileFormat.ARRAY_RECORD
    one = packed(TfdsSource("few", few), tmp_path / "one")
    two = packed(TfdsSource("few", converted), tmp_path / "two")
    assert one["digest"] == two["digest"]


@pytest.mark.parametrize(("first", "last"), [(0, 40), (7, 23), (39, 40)])
def test_parts_are_slices(few: tfds.core.DatasetBuilder, first: int, last: int) -> None:
    source = TfdsSource("few", few)
    whole = list(source.part("train", 0, 40))
    assert list(source.part("train", first, last)) == whole[first:last]


def test_names_of_folders_are_classes(tmp_path: Path) -> None:
    """Any folder of class folders; what is no picture is passed over."""
    for split in ("train", "val"):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(2):
                content = encoded(photo(10 * label + i, 60, 60), "PNG")
                (tmp_path / split / name / f"{i}.png").write_bytes(content)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not a picture")
    source = FolderSource("pets", epath.Path(tmp_path))
    assert (source.class_names, source.counts) == (["cat", "dog"], {"train": 4, "validation": 4})
    assert sorted(picture.label for picture in source.part("train", 0, 4)) == [0, 0, 1, 1]
    facts = packed(source, tmp_path / "packed")
    assert (facts["classes"], facts["converted"]) == (2, {})  # PNGs that are called so are not mended


def test_a_split_that_is_missing(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"there is no folder .*nowhere"):
        FolderSource("pets", epath.Path(tmp_path / "nowhere"))
    with pytest.raises(RefusedError, match="has no train and no validation pictures"):
        FolderSource("pets", epath.Path(tmp_path))
    (tmp_path / "train").symlink_to(folders / "train")
    with pytest.raises(RefusedError, match="has no validation pictures"):
        FolderSource("imagenet2012", epath.Path(tmp_path))
    (tmp_path / "val").mkdir()
    with pytest.raises(RefusedError, match="files in the class folders"):
        FolderSource("imagenet2012", epath.Path(tmp_path))
    (tmp_path / "val" / "cat").mkdir()
    with pytest.raises(RefusedError, match="is none of the 1000 classes of imagenet2012"):
        FolderSource("imagenet2012", epath.Path(tmp_path))


def test_one_archive_is_refused(tmp_path: Path) -> None:
    """TFDS would make a data set of one split, and call it whole for ever."""
    with pytest.raises(RefusedError, match=r"get ILSVRC2012_img_train\.tar and ILSVRC2012_img_val\.tar from"):
        open_tfds("imagenet2012", Making("", str(tmp_path / "tfds"), "any"))
    write_archives(tmp_path, 1, 1)
    (tmp_path / "ILSVRC2012_img_val.tar").unlink()
    with pytest.raises(RefusedError, match=r"lacks ILSVRC2012_img_val\.tar"):
        open_tfds("imagenet2012", Making(str(tmp_path), str(tmp_path / "tfds"), "any"))
    assert not (tmp_path / "tfds").exists()


@pytest.mark.parametrize("how", ["sizes", "md5"])
def test_other_archives_are_refused(how: str, tmp_path: Path) -> None:
    write_archives(tmp_path, 1, 1)
    with pytest.raises(RefusedError, match="bytes, the published one 147897477120"):
        open_tfds("imagenet2012", Making(str(tmp_path), str(tmp_path / "tfds"), how))


def test_disks_that_are_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Archives as large as the real ones: TFDS's copy and the packed pictures are added up on one disk."""
    for name, (size, _) in PUBLISHED.items():
        with (tmp_path / name).open("w") as file:
            file.truncate(size)  # a hole takes no room
    copy, packed = epath.Path(tmp_path / "tfds" / "5.1.0"), epath.Path(tmp_path / "packed")
    for free, fits in ((150e9, False), (300e9, False), (450e9, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        room = partial(check_room, tmp_path, copy, (packed, 3 * 256**2))
        if fits:
            room()
            continue
        both = r" and 261\.7 GB for the packed pictures" if free > 200e9 else ""
        with pytest.raises(RefusedError, match=rf"needs 162\.4 GB for TFDS's copy of both archives{both}:"):
            room()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("imagenet2021", "the nearest name is imagenet2012"),
        ("my photos", "TFDS has no data set 'my photos': .*my photos"),
        ("cifar10:9.9.9", r"TFDS has no data set 'cifar10:9\.9\.9': .*cannot be loaded at version 9\.9\.9"),
    ],
)
def test_an_unknown_name(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        open_tfds(name, Making())


def test_what_can_never_be_packed_is_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="TFDS's glue is no set of pictures with one label each"):
        open_tfds("glue", Making(tfds_dir=str(tmp_path / "tfds")))
    assert not (tmp_path / "tfds").exists()


def test_folders_that_are_not_as_they_should_be(tmp_path: Path) -> None:
    write_folders(tmp_path, 2, 3)
    with pytest.raises(RefusedError, match="3 beside them: only imagenet2012 has a list of their classes"):
        FolderSource("mine", epath.Path(tmp_path))
    with pytest.raises(RefusedError, match=f"did you mean {tmp_path}"):
        FolderSource("mine", epath.Path(tmp_path / "train"))


def test_what_is_no_set_of_pictures(tmp_path: Path) -> None:
    """A TFDS data set of text is refused in words."""
    builder = tfds.testing.DummyDataset(data_dir=str(tmp_path))
    builder.download_and_prepare()
    with pytest.raises(RefusedError, match="no set of pictures with one label each"):
        TfdsSource("dummy", builder)


def test_synsets_are_real() -> None:
    names = tfds.core.tfds_path("datasets/imagenet2012/labels.txt").read_text().split()
    assert set(SYNSETS) < set(names)
