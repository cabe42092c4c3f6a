"""Rows of a packed data set by index, through tf.data, in an order that any number of hosts agrees on."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource

from alexnet_jax.config import DataConfig
from alexnet_jax.data.packing import STATISTICS, check_writable, data_dir, pack, packed_path
from alexnet_jax.data.sources import open_source
from alexnet_jax.data.statistics import PixelStatistics
from alexnet_jax.errors import ConfigError, RefusedError

PADDING = -1

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]  # pictures u8[b, S, S, 3], labels i32[b], weights f32[b]


class PackedSet:
    """A packed data set on disk."""

    def __init__(self, path: Path):
        # The GPU belongs to JAX.
        tf.config.set_visible_devices([], "GPU")
        try:
            self.info = tfds.builder_from_directory(path).info
            self.statistics = PixelStatistics.load(path / STATISTICS)
        except Exception as error:  # TFDS, NumPy and zip files each have their own
            reason = f"{type(error).__name__} while reading it"
            raise RefusedError(f"{path} is no packed data set: {reason}; delete it to pack anew") from error
        self.class_names = self.info.features["label"].names
        self._sources: dict[str, ArrayRecordDataSource] = {}

    def images(self, split: str) -> int:
        return self.info.splits[split].num_examples

    def source(self, split: str) -> ArrayRecordDataSource:
        """Serialized rows by index; its files stay open, and are opened once."""
        if split not in self._sources:
            self._sources[split] = ArrayRecordDataSource(self.info.splits[split].file_instructions)
        return self._sources[split]


def ensure_packed(config: DataConfig) -> Path:
    """The folder of a packed data set, which is packed now if it is not there."""
    path = packed_path(config)
    if not path.exists():
        check_writable(data_dir(config))
        print(f"packing {config.name} at {config.size} x {config.size} into {path}, once", flush=True)
        pack(open_source(config.name, data_dir(config)), config.size, path)
    return path


def open_packed(config: DataConfig, classes: int) -> PackedSet:
    """The packed data set of a config, made first where it can be."""
    packed = PackedSet(ensure_packed(config))
    if len(packed.class_names) != classes:
        raise ConfigError(
            f"network.classes={classes}, but {config.name} has {len(packed.class_names)} classes"
        )
    return packed


class TrainingOrder:
    """The ids of every batch: a permutation for each epoch, of (seed, epoch) alone, end to end.

    The last partial batch of an epoch goes on into the next one: no picture is dropped, and any step's batch
    is known without those before it.
    """

    def __init__(self, seed: int, images: int, batch_size: int):
        self.images, self.batch_size = images, batch_size
        self._permutation = functools.lru_cache(maxsize=3)(
            lambda epoch: np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(images)
        )

    def __call__(self, step: int) -> np.ndarray:
        epochs, places = np.divmod(
            np.arange(step * self.batch_size, (step + 1) * self.batch_size), self.images
        )
        return np.array([self._permutation(e)[p] for e, p in zip(epochs.tolist(), places, strict=True)])


class EvaluationOrder:
    """Every picture once, in order; the last batch is filled up with `PADDING`."""

    def __init__(self, images: int, batch_size: int):
        self.images, self.batch_size = images, batch_size
        self.batches = -(-images // batch_size)

    def __call__(self, step: int) -> np.ndarray:
        ids = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        return np.where(ids < self.images, ids, PADDING)


def read_batches(
    packed: PackedSet,
    split: str,
    order: Callable[[int], np.ndarray],
    steps: range,
    rows: np.ndarray,
    read_ahead: int,
) -> Iterator[Rows]:
    """This process's `rows` of each step's batch, read ahead of their use by tf.data's threads."""
    source, shape = packed.source(split), packed.info.features["image"].shape
    spec = {"image": tf.io.FixedLenFeature((), tf.string), "label": tf.io.FixedLenFeature((), tf.int64)}

    def fetch(step: int) -> tuple[np.ndarray, np.ndarray]:
        ids = order(int(step))[rows]
        records = source.__getitems__(np.maximum(ids, 0).tolist())
        return np.array(records, object), (ids != PADDING).astype(np.float32)

    def load(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        records, weights = tf.numpy_function(fetch, [step], (tf.string, tf.float32))
        parsed = tf.io.parse_example(records, spec)
        pictures = tf.reshape(tf.io.decode_raw(parsed["image"], tf.uint8), (len(rows), *shape))
        return pictures, tf.cast(parsed["label"], tf.int32), weights

    # Nothing is left to tune, and the tuner sleeps up to a minute before it lets an iterator end.
    options = tf.data.Options()
    options.autotune.enabled = False
    data = tf.data.Dataset.range(steps.start, steps.stop).map(load, num_parallel_calls=2)
    return data.prefetch(read_ahead).with_options(options).as_numpy_iterator()
