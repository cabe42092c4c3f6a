"""What packing does to a picture, and that a packed set is whole, readable and reproducible."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from alexnet_jax.data import packing
from alexnet_jax.data.batches import PackedSet
from alexnet_jax.data.packing import centre_square, pack
from tests.data.conftest import SIZE


@pytest.mark.parametrize("shape", [(216, 324), (324, 216), (216, 216)])
def test_shrinking_averages_blocks(shape: tuple[int, int]) -> None:
    """Shorter side to a third, never warped, central square: the mean of each 3 x 3 block."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    height, width = (side // 3 for side in shape)
    small = image.reshape(height, 3, width, 3, 3).mean(axis=(1, 3))
    top, left = (height - 72) // 2, (width - 72) // 2
    wanted = small[top : top + 72, left : left + 72]
    assert np.abs(centre_square(image, 72).numpy() - wanted).max() <= 0.5 + 1e-4


def test_growing_keeps_the_shape_of_things() -> None:
    """A ramp stays a ramp: what is enlarged is interpolated, from the same central square."""
    ramp = np.tile(np.linspace(0, 255, 60)[:, None, None], (1, 40, 3)).astype(np.uint8)
    grown = centre_square(ramp, 72).numpy().astype(float)
    assert grown.shape == (72, 72, 3)
    assert np.all(np.diff(grown[:, 0, 0]) >= 0)
    assert grown[0, 0, 0] == pytest.approx(255 / 6, abs=6)
    assert grown[-1, 0, 0] == pytest.approx(255 * 5 / 6, abs=6)


def test_plain_tfds_opens_it(packed_path: Path, few: tfds.core.DatasetBuilder) -> None:
    """Rows are the source's examples in the source's order, each put through `centre_square`."""
    opened = tfds.builder_from_directory(packed_path)
    assert {name: split.num_examples for name, split in opened.info.splits.items()} == {
        "train": 40,
        "validation": 20,
    }
    assert opened.info.features["label"].names == few.info.features["label"].names
    source = tfds.as_numpy(few.as_dataset(split="validation"))
    rows = opened.as_data_source(split="validation")
    for example, row in zip(source, rows, strict=True):
        np.testing.assert_array_equal(row["image"], centre_square(example["image"], SIZE).numpy())
        assert (row["label"], row["file_name"]) == (example["label"], example["file_name"])


def test_statistics_against_numpy(packed: PackedSet, packed_path: Path) -> None:
    rows = tfds.builder_from_directory(packed_path).as_data_source(split="train")
    pictures = np.stack([row["image"] for row in rows]).astype(np.float64)
    np.testing.assert_allclose(packed.statistics.mean, pictures.mean(axis=0), rtol=1e-6)
    wanted = np.cov(pictures.reshape(-1, 3).T, bias=True)
    np.testing.assert_allclose(packed.statistics.covariance, wanted, rtol=1e-6)


def test_a_half_made_set_is_not_a_set(
    few: tfds.core.DatasetBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stops packing leaves nothing that could be taken for a packed set."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(packing.PixelSums, "statistics", stop)
    with pytest.raises(KeyboardInterrupt):
        pack(few, SIZE, tmp_path / "toyshapes")
    assert list(tmp_path.iterdir()) == []


def test_shards_share_the_rows(packed_path: Path, in_shards: Path) -> None:
    """Three shards hold what one holds, in the same order."""
    assert len(list(in_shards.glob("*-train.*"))) == 3
    one, three = (
        tfds.builder_from_directory(path).as_data_source(split="train") for path in (packed_path, in_shards)
    )
    for left, right in zip(one, three, strict=True):
        np.testing.assert_array_equal(left["image"], right["image"])


def test_others_may_read_it(packed_path: Path) -> None:
    assert packed_path.stat().st_mode & 0o555 == 0o555
