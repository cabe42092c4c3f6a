"""Packs a data set once: all that the paper's recipe does to a picture before it is cropped.

A packed set is a TFDS data set in a random-access format (`tfds.builder_from_directory` opens it), with the
statistics of its training split beside it. It is built in a temporary folder and moved into place when it is
whole.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tqdm import tqdm

from alexnet_jax.config import DataConfig
from alexnet_jax.data.statistics import PixelSums
from alexnet_jax.errors import RefusedError

SPLITS = ("train", "validation")
STATISTICS = "statistics.npz"
SHARD_BYTES = 256 * 2**20
READ_AT_ONCE = 64


def data_dir(config: DataConfig) -> Path:
    """Where data sets are kept."""
    chosen = config.dir or os.environ.get("ALEXNET_DATA_DIR") or "~/.cache/alexnet_jax"
    return Path(chosen).expanduser().absolute()


def packed_path(config: DataConfig) -> Path:
    """The folder of a packed data set."""
    return data_dir(config) / "packed" / f"{config.name}-{config.size}"


def check_writable(root: Path) -> None:
    """Refuses a folder in which no data set can be made."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise RefusedError(f"cannot write below {root}: {error.strerror}") from error


def pack(builder: tfds.core.DatasetBuilder, size: int, target: Path) -> None:
    """Writes the packed form of a prepared data set to `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        features = _features(builder, size)
        sums = PixelSums(size)
        splits = [_pack_split(builder, split, features, work, sums) for split in SPLITS]
        sums.statistics().save(work / STATISTICS)
        tfds.folder_dataset.write_metadata(
            data_dir=work,
            features=features,
            split_infos=splits,
            filename_template=_template(builder, work),
            description=f"{builder.name} {builder.version}: shorter side {size}, centre crop, uint8",
            check_data=False,
        )
        work.chmod(0o755)  # others may read it
        try:
            work.rename(target)
        except OSError:
            if not target.exists():  # another process may have been faster
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def centre_square(image: tf.Tensor, size: int) -> tf.Tensor:
    """Section 2: the shorter side to `size`, never warped, and the central square; u8[size, size, 3]."""
    shape = tf.shape(image)[:2]
    shorter = tf.reduce_min(shape)
    scaled = tf.cast(tf.round(shape * size / shorter), tf.int32)
    # Area averaging to shrink and cubic to grow, as the authors did.
    resized = tf.cond(
        shorter > size,
        lambda: tf.image.resize(image, scaled, method="area"),
        lambda: tf.image.resize(image, scaled, method="bicubic"),
    )
    top, left = (scaled[0] - size) // 2, (scaled[1] - size) // 2
    square = resized[top : top + size, left : left + size]
    return tf.saturate_cast(tf.round(tf.ensure_shape(square, (size, size, 3))), tf.uint8)


def _features(builder: tfds.core.DatasetBuilder, size: int) -> tfds.features.FeaturesDict:
    image = tfds.features.Tensor(shape=(size, size, 3), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES)
    names = builder.info.features["label"].names
    return tfds.features.FeaturesDict(
        {
            "image": image,
            "label": tfds.features.ClassLabel(names=names),
            "file_name": tfds.features.Text(),
        }
    )


def _template(builder: tfds.core.DatasetBuilder, work: Path) -> tfds.core.ShardedFileTemplate:
    return tfds.core.ShardedFileTemplate(
        data_dir=work, dataset_name=builder.name, filetype_suffix="array_record"
    )


def _pack_split(
    builder: tfds.core.DatasetBuilder,
    split: str,
    features: tfds.features.FeaturesDict,
    work: Path,
    sums: PixelSums,
) -> tfds.core.SplitInfo:
    """Writes the shards of a split, in the source's order; the training split feeds the statistics."""
    size, images = features["image"].shape[0], builder.info.splits[split].num_examples
    shards = max(1, round(images * size * size * 3 / SHARD_BYTES))
    lengths = [images * (i + 1) // shards - images * i // shards for i in range(shards)]
    template = _template(builder, work).replace(split=split)
    rows = _rows(_squares(builder, split, size), sums if split == "train" else None)
    # The bar is for terminals only.
    rows = iter(tqdm(rows, f"packing {split}", images, leave=False, unit="picture", disable=None))
    for i, length in enumerate(lengths):
        # One picture a group: a random read decodes one picture. Uncompressed: pixels barely compress.
        writer = ArrayRecordWriter(
            str(template.sharded_filepath(shard_index=i, num_shards=shards)), "group_size:1,uncompressed"
        )
        for _ in range(length):
            writer.write(features.serialize_example(next(rows)))
        writer.close()
    return tfds.core.SplitInfo(
        name=split, shard_lengths=lengths, num_bytes=images * size * size * 3, filename_template=template
    )


def _squares(builder: tfds.core.DatasetBuilder, split: str, size: int) -> tf.data.Dataset:
    """Batches of decoded, resized, cropped pictures in the source's own order."""

    def square(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {**example, "image": centre_square(example["image"], size)}

    read = tfds.ReadConfig(interleave_cycle_length=1, add_tfds_id=False)
    data = builder.as_dataset(split=split, read_config=read)
    return data.map(square, tf.data.AUTOTUNE).batch(READ_AT_ONCE).prefetch(2)


def _rows(batches: tf.data.Dataset, sums: PixelSums | None) -> Iterator[dict[str, np.ndarray]]:
    for batch in batches:
        batch = {name: value.numpy() for name, value in batch.items()}
        if sums is not None:
            sums.add(batch["image"])
        for i in range(len(batch["image"])):
            yield {name: value[i] for name, value in batch.items()}
