"""A packed set is whole, readable and the same however it was made; or it is no packed set."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath

from alexnet_jax.config.fields import DataConfig
from alexnet_jax.data import packing
from alexnet_jax.data.batches import PackedSet, open_packed
from alexnet_jax.data.packed import BAD_PICTURES, MAKING, MARKER, STATISTICS, PackedFiles, find_packed
from alexnet_jax.data.packing import JOB, Packing, Work, pack, plan_packing
from alexnet_jax.data.shards import PackedForm
from alexnet_jax.data.sources import FolderSource
from alexnet_jax.data.squares import centre_square
from alexnet_jax.data.verifying import verify
from alexnet_jax.errors import Interrupted, RefusedError
from tests.data.conftest import RAW, SIZE, plan
from tests.data.images import encoded, photo
from tests.data.test_pictures import BAD, as_pillow_reads_it


def facts(path: Path) -> dict:
    return json.loads((path / MARKER).read_text())


def test_plain_tfds_opens_it(packed_path: Path, few: tfds.core.DatasetBuilder) -> None:
    """Rows are the source's examples in the source's order, each put through `centre_square`."""
    opened = tfds.builder_from_directory(packed_path)
    assert {name: split.num_examples for name, split in opened.info.splits.items()} == {
        "train": 40,
        "validation": 20,
    }
    assert opened.info.features["label"].names == few.info.features["label"].names
    as_stored = {"image": tfds.decode.SkipDecoding()}
    source = few.as_dataset(split="validation", decoders=as_stored).as_numpy_iterator()
    rows = opened.as_data_source(split="validation")
    for example, row in zip(source, rows, strict=True):
        wanted = centre_square(as_pillow_reads_it(example["image"]), SIZE)
        np.testing.assert_array_equal(row["image"], wanted)
        assert (row["label"], row["file_name"]) == (example["label"], example["file_name"])


def test_jpegs(few: tfds.core.DatasetBuilder, packed_path: Path, tmp_path: Path) -> None:
    """Nearly the pixels of the raw set, in fewer bytes the lower the quality; the same statistics."""
    raw = tfds.builder_from_directory(packed_path).as_data_source(split="train")
    sizes = [sum(file.stat().st_size for file in packed_path.glob("*.array_record-*"))]
    for quality in (95, 30):
        path = tmp_path / str(quality)
        pack(plan(few, path, PackedForm(SIZE, "jpeg", quality)), Work())
        rows = tfds.builder_from_directory(path).as_data_source(split="train")
        for row, wanted in zip(rows, raw, strict=True):
            assert np.abs(row["image"].astype(float) - wanted["image"]).mean() < 15
            assert (row["label"], row["file_name"]) == (wanted["label"], wanted["file_name"])
        assert (
            np.load(path / STATISTICS)["mean"].tolist() == np.load(packed_path / STATISTICS)["mean"].tolist()
        )
        sizes.append(sum(file.stat().st_size for file in path.glob("*.array_record-*")))
    assert sizes[0] > sizes[1] > sizes[2]


def test_statistics_against_numpy(packed: PackedSet, packed_path: Path) -> None:
    rows = tfds.builder_from_directory(packed_path).as_data_source(split="train")
    pictures = np.stack([row["image"] for row in rows]).astype(np.float64)
    np.testing.assert_allclose(packed.statistics.mean, pictures.mean(axis=0), rtol=1e-6)
    wanted = np.cov(pictures.reshape(-1, 3).T, bias=True)
    np.testing.assert_allclose(packed.statistics.covariance, wanted, rtol=1e-6)
    arrays = np.load(packed_path / STATISTICS)
    vectors = arrays["eigenvectors"]
    np.testing.assert_allclose(vectors @ np.diag(arrays["eigenvalues"]) @ vectors.T, wanted, rtol=1e-6)


@pytest.mark.parametrize("size", [8, 72, 256, 300])
def test_sums_are_exact(size: int) -> None:
    """The brightest pictures that there can be, and random ones, of sizes that blocks do not divide."""
    from alexnet_jax.data.statistics import PixelSums

    random = np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8)
    pictures = [np.full((size, size, 3), 255, np.uint8), random]
    sums = PixelSums(size)
    for picture in pictures:
        sums.add(picture)
    colours = np.concatenate(pictures).reshape(-1, 3).astype(np.int64)
    assert np.array_equal(sums.products, colours.T @ colours)
    assert np.array_equal(sums.total, np.sum(pictures, axis=0, dtype=np.int64))


def test_shards_share_the_rows(packed_path: Path, in_shards: Path) -> None:
    """Three shards hold what one holds, in the same order, and have the same statistics."""
    assert len(list(in_shards.glob("*-train.*"))) == 3
    one, three = (
        tfds.builder_from_directory(path).as_data_source(split="train") for path in (packed_path, in_shards)
    )
    for left, right in zip(one, three, strict=True):
        np.testing.assert_array_equal(left["image"], right["image"])
    for name, array in np.load(packed_path / STATISTICS).items():
        np.testing.assert_array_equal(np.load(in_shards / STATISTICS)[name], array)


def test_others_may_read_it(packed_path: Path) -> None:
    assert packed_path.stat().st_mode & 0o555 == 0o555
    assert all(file.stat().st_mode & 0o444 == 0o444 for file in packed_path.iterdir())


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five files to train and three to validate."""
    monkeypatch.setattr(packing, "SHARD_BYTES", 8 * SIZE * SIZE * 3)


@pytest.fixture
def halves(few: tfds.core.DatasetBuilder, tmp_path: Path, small_shards: None) -> Packing:
    """A set of which some files are whole and one was begun, as packing leaves it when it is stopped."""
    del small_shards
    half = plan(few, tmp_path / "few-72-raw")
    polls = iter(range(1000))
    with pytest.raises(Interrupted, match="stopped, 2 of 8 files are packed; the same command goes on"):
        pack(half, Work(asked=lambda: next(polls) == 20))
    return half


def test_a_half_made_set_is_not_a_set(halves: Packing) -> None:
    config = DataConfig("few", 72, "raw", os.fspath(halves.target.parent), 1, 1, 0, trace=False)
    Path(halves.target.parent, "packed").symlink_to(halves.target.parent)
    with pytest.raises(RefusedError, match=r"not packed to the end: .* is half made; make it with: python"):
        find_packed(config)
    pack(halves, Work())
    assert find_packed(config).facts["name"] == "few"
    next(halves.target.glob("*-validation.*")).unlink()
    with pytest.raises(RefusedError, match="lacks 1 of its 11 files, such as few-validation"):
        find_packed(config)


def test_a_disk_that_is_too_small(few: tfds.core.DatasetBuilder, tmp_path: Path) -> None:
    """Sixty pictures of 300,000 x 300,000 pixels."""
    large = plan(few, tmp_path / "large", PackedForm(300_000, "raw"))
    with pytest.raises(RefusedError, match=r"needs about 16200\.0 GB and has .*--encoding=jpeg"):
        packing.check_space(large)


def test_a_folder_that_is_no_data_set(tmp_path: Path) -> None:
    config = DataConfig("few", 72, "raw", str(tmp_path), 1, 1, 0, trace=False)
    path = tmp_path / "packed" / "few-72-raw"
    path.mkdir(parents=True)
    (path / MARKER).write_text("{")
    with pytest.raises(RefusedError, match=r"packed\.json cannot be read; delete .*few-72-raw, and make it"):
        find_packed(config)
    (path / MARKER).write_text('{"splits": {"train": {"files": {}}, "validation": {"files": {}}}}')
    with pytest.raises(RefusedError, match=r"packed\.json cannot be read"):
        find_packed(config)


@pytest.mark.parametrize("name", [STATISTICS, "dataset_info.json", "features.json"])
def test_what_lies_beside_the_pictures(packed_path: Path, tmp_path: Path, name: str) -> None:
    """Lost or spoilt, it is named, by those who train and by those who verify."""
    shutil.copytree(packed_path, tmp_path / "packed" / "few-72-raw")
    config = DataConfig("few", 72, "raw", str(tmp_path), 1, 1, 0, trace=False)
    whole = find_packed(config)
    verify(whole, processes=1)
    (whole.path / name).write_text("{")
    for use in (lambda: open_packed(config, 10), lambda: verify(whole, processes=1)):
        with pytest.raises(RefusedError, match=r"few-72-raw is damaged: \w+ while reading its [\w.]+; "):
            use()
    (whole.path / name).unlink()
    with pytest.raises(RefusedError, match=f"lacks 1 of its 5 files, such as {name}"):
        find_packed(config)


def test_an_index_without_splits(packed_path: Path, tmp_path: Path) -> None:
    """It can be read, and cannot be right."""
    shutil.copytree(packed_path, tmp_path / "packed" / "few-72-raw")
    index = tmp_path / "packed" / "few-72-raw" / "dataset_info.json"
    index.write_text(json.dumps({k: v for k, v in json.loads(index.read_text()).items() if k != "splits"}))
    config = DataConfig("few", 72, "raw", str(tmp_path), 1, 1, 0, trace=False)
    with pytest.raises(RefusedError, match=r"few-72-raw is damaged: its number of pictures cannot be right"):
        open_packed(config, 10)


def test_another_form_does_not_go_on(halves: Packing, few: tfds.core.DatasetBuilder) -> None:
    other = plan(few, halves.target, PackedForm(SIZE, "jpeg", 80))
    with pytest.raises(RefusedError, match=r"another encoding \(it was raw, and is now jpeg\): delete it"):
        pack(other, Work())


@pytest.mark.slow
def test_processes_make_the_same(few: tfds.core.DatasetBuilder, tmp_path: Path, small_shards: None) -> None:
    del small_shards
    many, one = plan(few, tmp_path / "many"), plan(few, tmp_path / "one")
    assert pack(many, Work(processes=2)) and pack(one, Work())
    assert facts(many.target) == facts(one.target)
    verify(PackedFiles(many.target, facts(many.target)), processes=2)


@pytest.fixture
def with_bad(tmp_path: Path) -> Packing:
    """Twenty pictures, and one of each kind that cannot be used."""
    for split, first in (("train", 0), ("val", 100)):
        for i in range(10):
            path = tmp_path / "folder" / split / "thing" / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(photo(first + i, 100, 90)))
    for name, (content, _) in BAD.items():
        (tmp_path / "folder" / "train" / "thing" / f"{name}.jpg").write_bytes(content)
    return plan_packing(
        FolderSource("things", epath.Path(tmp_path / "folder")), RAW, epath.Path(tmp_path / "set")
    )


def test_bad_pictures_are_left_out(with_bad: Packing) -> None:
    """Listed with their names and reasons, and counted; the rest is packed."""
    assert pack(with_bad, Work(most_bad=0.5))
    found = facts(with_bad.target)
    assert (found["left_out"], found["splits"]["train"]["pictures"]) == (len(BAD), 10)
    listed = [json.loads(line) for line in (with_bad.target / BAD_PICTURES).read_text().splitlines()]
    assert {entry["file_name"]: entry["why"] for entry in listed} == {
        f"{name}.jpg": why for name, (_, why) in BAD.items()
    }
    assert tfds.builder_from_directory(with_bad.target).info.splits["train"].num_examples == 10
    verify(PackedFiles(with_bad.target, found), processes=1)


def test_too_many_bad_pictures_stop_it(with_bad: Packing) -> None:
    with pytest.raises(
        RefusedError, match="1 of 29 pictures so far cannot be used, and 0 may be left out, such"
    ):
        pack(with_bad, Work())
    with pytest.raises(RefusedError, match=r"9 of 29 .* and 8 may be left out"):
        pack(with_bad, Work(most_bad=0.3))
    assert len((with_bad.target / BAD_PICTURES).read_text().splitlines()) == 9
    assert not (with_bad.target / MARKER).exists()


def test_verifying_finds_damage(few: tfds.core.DatasetBuilder, tmp_path: Path, small_shards: None) -> None:
    """A flipped bit, a file in another's place, and a file cut short."""
    del small_shards
    whole = plan(few, tmp_path / "set")
    pack(whole, Work())
    files = PackedFiles(whole.target, facts(whole.target))
    verify(files, processes=1)
    first, second = whole.shards[0].path, whole.shards[1].path
    content = first.read_bytes()

    def damaged(changed: bytes) -> str:
        first.write_bytes(changed)
        with pytest.raises(RefusedError) as caught:
            verify(files, processes=1)
        return str(caught.value)

    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    assert f"is damaged: {first.name}: row " in damaged(flipped)
    assert "its rows are not those that were written" in damaged(second.read_bytes())
    assert f"is damaged: {first.name}: " in damaged(content[:middle])
    first.write_bytes(content)
    verify(files, processes=1)


def test_jobs_are_noted_first(halves: Packing) -> None:
    assert json.loads((halves.target / MAKING / JOB).read_text()) == halves.job
