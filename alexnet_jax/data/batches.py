"""Rows of a packed data set by index, through tf.data, in an order that any number of hosts agrees on."""

import functools
import hashlib
import os
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from etils import epath

from alexnet_jax.config import DataConfig
from alexnet_jax.data.packed import DRAWN, find_packed, packing_command
from alexnet_jax.data.packing import STATISTICS, pack_toyshapes
from alexnet_jax.data.pictures import decode_jpeg
from alexnet_jax.data.statistics import PixelStatistics
from alexnet_jax.errors import ConfigError, RefusedError

PADDING = -1

# Pictures u8[b, S, S, 3], labels i32[b], weights f32[b], and a digest of what was read (0 without trace).
Rows = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class PackedSet:
    """A packed data set on disk."""

    def __init__(self, path: epath.Path):
        # The GPU belongs to JAX.
        tf.config.set_visible_devices([], "GPU")
        try:
            self.info = tfds.builder_from_directory(path).info
            self.statistics = PixelStatistics.load(path / STATISTICS)
        except Exception as error:  # TFDS, NumPy and zip files each have their own
            reason = f"{type(error).__name__} while reading it"
            raise RefusedError(f"{path} is no packed data set: {reason}; delete it to pack anew") from error
        self.path = path
        self.class_names = self.info.features["label"].names
        self.encoded = isinstance(self.info.features["image"], tfds.features.Image)
        self._sources: dict[str, ArrayRecordDataSource] = {}

    def images(self, split: str) -> int:
        return self.info.splits[split].num_examples

    def source(self, split: str) -> ArrayRecordDataSource:
        """Serialized rows by index; its files stay open, and are opened once."""
        if split not in self._sources:
            self._sources[split] = ArrayRecordDataSource(self.info.splits[split].file_instructions)
        return self._sources[split]


def open_packed(config: DataConfig, classes: int) -> PackedSet:
    """The packed data set of a config; toyshapes are drawn and packed first where they are not there."""
    if config.name == DRAWN:
        pack_toyshapes(config)
    packed = PackedSet(find_packed(config).path)
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
        first, images = step * self.batch_size, self.images
        last = first + self.batch_size
        epochs = range(first // images, (last - 1) // images + 1)
        parts = [self._permutation(e)[max(0, first - e * images) : last - e * images] for e in epochs]
        return np.concatenate(parts)


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
    config: DataConfig,
) -> Iterator[Rows]:
    """This process's `rows` of each step's batch, read and decoded ahead of use by tf.data's threads."""
    source, shape = packed.source(split), packed.info.features["image"].shape
    threads = config.threads or os.cpu_count()

    def fetch(step: int) -> tuple[np.ndarray, ...]:
        ids = order(int(step))[rows]
        # One by one: reading many at once starts threads for each of them, at eight times the cost.
        records = [source[number] for number in np.maximum(ids, 0).tolist()]
        images, labels = _columns(records)
        pixels = np.array(images, object) if packed.encoded else _stacked(images, shape)
        digest = _digest(rows, ids, records) if config.trace else np.uint64()
        return pixels, labels, (ids != PADDING).astype(np.float32), digest

    def load(step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        kinds = (tf.string if packed.encoded else tf.uint8, tf.int32, tf.float32, tf.uint64)
        images, *others = tf.numpy_function(fetch, [step], kinds)
        if packed.encoded:
            images = tf.map_fn(decode_jpeg, images, fn_output_signature=tf.uint8)
        return tf.ensure_shape(images, (len(rows), *shape)), *others

    # Nothing is left to tune, and the tuner sleeps up to a minute before it lets an iterator end.
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = threads
    data = tf.data.Dataset.range(steps.start, steps.stop).map(load, num_parallel_calls=threads)
    batches = data.prefetch(config.read_ahead).with_options(options).as_numpy_iterator()
    damaged = False
    try:
        yield from batches
    except tf.errors.OpError:
        damaged = True
    # An iterator that an error keeps alive has threads that hang the interpreter at its end.
    del batches
    if damaged:
        raise RefusedError(
            f"the {split} pictures in {packed.path} cannot be read; this says what is damaged: "
            f"{packing_command(config)} --verify"
        )


def _columns(records: list[bytes]) -> tuple[list[bytes], np.ndarray]:
    """Images and labels of rows. In Python: for large rows TensorFlow's parser takes six times as long."""
    images, labels = [], np.empty(len(records), np.int32)
    for i, record in enumerate(records):
        columns = tf.train.Example.FromString(record).features.feature
        images.append(columns["image"].bytes_list.value[0])
        labels[i] = columns["label"].int64_list.value[0]
    return images, labels


def _stacked(images: list[bytes], shape: tuple[int, int, int]) -> np.ndarray:
    pixels = np.empty((len(images), *shape), np.uint8)
    for i, image in enumerate(images):
        pixels[i] = np.frombuffer(image, np.uint8).reshape(shape)
    return pixels


def _digest(rows: np.ndarray, ids: np.ndarray, records: list[bytes]) -> np.uint64:
    """Of which rows were read for which places of a batch; those of several hosts are combined by XOR."""
    total = np.uint64()
    for row, number, record in zip(rows.tolist(), ids.tolist(), records, strict=True):
        hashed = hashlib.blake2b(record, digest_size=8, key=f"{row} {number}".encode())
        total ^= np.frombuffer(hashed.digest(), np.uint64)[0]
    return total
