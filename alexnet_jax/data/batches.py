"""Rows of a packed data set by index, through tf.data, in an order that any number of hosts agrees on."""

import contextlib
import functools
import hashlib
import math
import os
from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from etils import epath
from google.protobuf.message import DecodeError

from alexnet_jax.config.fields import DataConfig
from alexnet_jax.data.packed import (
    DRAWN,
    METADATA,
    STATISTICS,
    find_packed,
    packing_command,
    refuse_early,
)
from alexnet_jax.data.packing import pack_toyshapes
from alexnet_jax.data.pictures import decode_jpeg
from alexnet_jax.data.statistics import PixelStatistics
from alexnet_jax.errors import RefusedError

PADDING = -1  # the id, and the label, of a row that does not count
ALIGNMENT = 64
# What reading rows of a damaged set ends in.
UNREADABLE = (RuntimeError, ValueError, OSError, IndexError, OverflowError, DecodeError)
READ_BYTES = 4 << 20  # Batches smaller than this are read several at a time.

# Pictures u8[b, S, S, 3], labels i32[b], and a digest of what was read (0 without trace).
Rows = tuple[np.ndarray, np.ndarray, np.uint64]


def leave_gpus() -> None:
    """Keeps TensorFlow off them, before it does anything: they belong to JAX."""
    tf.config.set_visible_devices([], "GPU")


class PackedSet:
    """A packed data set on disk; raw splits of up to `keep_mib` stay in memory once they are read."""

    def __init__(self, path: epath.Path, keep_mib: int = 0):
        leave_gpus()
        part = METADATA[0]
        try:
            self.info = info = tfds.builder_from_directory(path).info
            self._files = {split: info.splits[split].file_instructions for split in info.splits}
            self.pictures = {split: info.splits[split].num_examples for split in info.splits}
            self.class_names = info.features["label"].names
            self.encoded = isinstance(info.features["image"], tfds.features.Image)
            self.shape = info.features["image"].shape
            part = STATISTICS
            self.statistics = PixelStatistics.load(path / STATISTICS)
        except Exception as error:  # TFDS, NumPy and zip files each have their own
            reason = f"{type(error).__name__} while reading its {part}"
            raise RefusedError(f"{path} is damaged: {reason}; delete it to pack anew") from error
        self.path, self._keep_mib = path, keep_mib
        self._tables: dict[str, Table] = {}

    def images(self, split: str) -> int:
        return self.pictures[split]

    def read(self, split: str, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pictures u8[n, S, S, 3] and labels, a few at a time."""
        try:
            pictures, labels = self.table(split)(numbers)
            if self.encoded:
                pictures = np.stack([decode_jpeg(picture).numpy() for picture in pictures])
        except (*UNREADABLE, tf.errors.OpError) as error:
            words = (
                f"the {split} pictures in {self.path} cannot be read; prepare --verify says what is damaged"
            )
            raise RefusedError(words) from error
        return pictures, labels

    def table(self, split: str) -> "Table":
        """A split's rows by index; its files stay open, and are opened once."""
        if split not in self._tables:
            source = ArrayRecordDataSource(self._files[split])
            shape = None if self.encoded else self.shape
            keep = shape is not None and len(source) * math.prod(shape) <= self._keep_mib << 20
            self._tables[split] = Table(source, len(self.class_names), shape, keep)
        return self._tables[split]


class Table:
    """Images, as pixels of a shape or as they are encoded, and labels by index; kept in memory on request."""

    def __init__(
        self, source: ArrayRecordDataSource, classes: int, shape: tuple[int, ...] | None, keep: bool
    ):
        self._source, self._classes, self._shape = source, classes, shape
        self._kept = self._empty(len(source)) if keep else None
        self._known = np.zeros(len(source) if keep else 0, bool)

    def __call__(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._kept is None:
            columns = self._empty(len(numbers))
            self._read(numbers, columns, np.arange(len(numbers)))
            return columns
        # Two threads may read the same row; they write the same.
        new = numbers[~self._known[numbers]]
        self._read(new, self._kept, new)
        self._known[new] = True
        images, labels = self._kept
        chosen = _aligned((len(numbers), *self._shape))
        np.take(images, numbers, axis=0, out=chosen, mode="clip")
        return chosen, labels[numbers]

    @property
    def in_memory(self) -> bool:
        return self._kept is not None and bool(self._known.all())

    def _empty(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        kind, shape = (object, ()) if self._shape is None else (np.uint8, self._shape)
        return np.empty((count, *shape), kind), np.empty(count, np.int32)

    def _read(self, numbers: np.ndarray, into: tuple[np.ndarray, np.ndarray], places: np.ndarray) -> None:
        """Reads one by one: reading many at once starts threads for each of them, at eight times the cost.
        Parsed in Python: for large rows TensorFlow's parser takes six times as long.
        """
        images, labels = into
        for number, place in zip(numbers.tolist(), places.tolist(), strict=True):
            columns = tf.train.Example.FromString(self._source[number]).features.feature
            image = columns["image"].bytes_list.value[0]
            images[place] = np.frombuffer(image, np.uint8).reshape(self._shape) if self._shape else image
            labels[place] = label = columns["label"].int64_list.value[0]
            if not 0 <= label < self._classes:
                raise ValueError(f"there is no class {label}")


def open_packed(config: DataConfig, classes: int) -> PackedSet:
    """The packed data set of a config; toyshapes are drawn and packed first where they are not there."""
    refuse_early(config, classes)
    if config.name in DRAWN:
        pack_toyshapes(config)
    found = find_packed(config)
    packed = PackedSet(found.path, config.keep_mib)
    pictures = {split: facts["pictures"] for split, facts in found.facts["splits"].items()}
    square, statistics = (config.size, config.size, 3), packed.statistics
    for part, holds in (
        ("number of pictures", packed.pictures == pictures),
        ("number of classes", len(packed.class_names) == classes),
        ("size of pictures", packed.shape == square),
        ("statistics", statistics.mean.shape == square and statistics.fits),
    ):
        if not holds:
            raise RefusedError(f"{found.path} is damaged: its {part} cannot be right; delete it to pack anew")
    return packed


class TrainingOrder:
    """The ids of every batch: a permutation for each epoch, of (seed, epoch) alone, end to end.

    The last partial batch of an epoch goes on into the next one, or, where there are parts, each of them ends
    with a short batch, filled up with `PADDING`: no picture is dropped, and any step's batch is known without
    those before it. A `fixed` order is that of the first epoch for all.
    """

    def __init__(
        self, seed: int, images: int, batch_size: int, *, fixed: bool = False, parts: Sequence[range] = ()
    ):
        self.images, self.batch_size = images, batch_size
        self.batches = [part[i : i + batch_size] for part in parts for i in range(0, len(part), batch_size)]

        @functools.lru_cache(maxsize=3)
        def permutation(epoch: int) -> np.ndarray:
            return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(images)

        self._permutation = (lambda _: permutation(0)) if fixed else permutation

    def __call__(self, step: int) -> np.ndarray:
        if self.batches:
            epoch, number = divmod(step, len(self.batches))
            ids = self._permutation(epoch)[np.array(self.batches[number])]
            return np.pad(ids, (0, self.batch_size - len(ids)), constant_values=PADDING)
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

    def real(self, step: int) -> int:
        """The number of pictures in a batch."""
        return min(self.batch_size, self.images - step * self.batch_size)


def read_batches(
    packed: PackedSet,
    split: str,
    order: Callable[[int], np.ndarray],
    steps: range,
    rows: np.ndarray,
    config: DataConfig,
) -> Iterator[Rows]:
    """Yields this process's `rows` of each step's batch, read ahead by threads until all is in memory.

    Rows of a split in memory are copied on the spot: threads would cost more than that.
    """
    table, step = packed.table(split), steps.start

    def fetch(first: int, count: int) -> tuple[np.ndarray, ...]:
        batches = [order(step)[rows] for step in range(first, min(first + count, steps.stop))]
        ids = np.concatenate(batches)
        images, labels = table(np.maximum(ids, 0))
        digests = np.zeros(len(batches), np.uint64)
        if config.trace:
            read = zip(np.tile(rows, len(batches)), ids, labels, images, strict=True)
            hashed = np.array([_digest(*row) for row in read], np.uint64)
            digests = np.bitwise_xor.reduce(hashed.reshape(len(batches), -1), axis=1)
        return images, np.where(ids == PADDING, PADDING, labels), digests

    if not table.in_memory:
        with contextlib.closing(_read_ahead(fetch, steps, len(rows), packed, split, config)) as ahead:
            for batch in ahead:
                yield batch
                step += 1
                if table.in_memory:
                    break
    for left in range(step, steps.stop):
        images, labels, (digest,) = fetch(left, 1)
        yield images, labels, digest


def _read_ahead(
    fetch: Callable[[int, int], tuple[np.ndarray, ...]],
    steps: range,
    rows: int,
    packed: PackedSet,
    split: str,
    config: DataConfig,
) -> Generator[Rows]:
    """Yields the rows that `fetch` returns for each step, read and decoded by tf.data's threads."""
    shape, threads = packed.shape, config.threads or os.cpu_count()
    # Each read costs half a millisecond, whatever its size.
    together = max(1, min(config.read_ahead, READ_BYTES // (rows * math.prod(shape))))

    nothing = np.empty((0, *(() if packed.encoded else shape)), object if packed.encoded else np.uint8)
    source = [fetch]  # TensorFlow never lets go of a function, and would keep the files open for ever

    def fetch_if_possible(first: int, count: int) -> tuple[np.ndarray, ...]:
        """Returns no rows for what cannot be read: for an error, TensorFlow prints a traceback per thread."""
        try:
            [fetch] = source
            return fetch(first, count)
        except UNREADABLE:
            return nothing, np.empty(0, np.int32), np.empty(0, np.uint64)

    # AutoGraph has nothing to convert here; Python 3.13 warns of it, and where it fails the files stay open.
    @tf.autograph.experimental.do_not_convert
    def load(first: tf.Tensor) -> tuple[tf.Tensor, ...]:
        kinds = (tf.string if packed.encoded else tf.uint8, tf.int32, tf.uint64)
        images, labels, digests = tf.numpy_function(fetch_if_possible, [first, together], kinds)
        if packed.encoded:
            images = tf.map_fn(decode_jpeg, images, fn_output_signature=tf.TensorSpec(shape, tf.uint8))
        return tf.ensure_shape(images, (None, *shape)), labels, digests

    # Nothing is left to tune, and the tuner sleeps up to a minute before it lets an iterator end.
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = threads
    data = tf.data.Dataset.range(steps.start, steps.stop, together).map(load, num_parallel_calls=threads)
    reads = data.prefetch(config.read_ahead // together).with_options(options).as_numpy_iterator()
    damaged = False
    try:
        for images, labels, digests in reads:
            if damaged := not len(digests):
                break
            count = len(digests)
            yield from zip(np.split(images, count), np.split(labels, count), digests, strict=True)
    except tf.errors.OpError:
        damaged = True
    finally:
        source.clear()
    # An iterator that an error keeps alive has threads that hang the interpreter at its end.
    del reads
    if damaged:
        raise RefusedError(
            f"the {split} pictures in {packed.path} cannot be read; this says what is damaged: "
            f"{packing_command(config)} --verify"
        )


def _digest(place: int, number: int, label: int, image: bytes | np.ndarray) -> int:
    """A digest of one row in its place of a batch; XOR combines those of a batch, from all hosts."""
    hashed = hashlib.blake2b(image, digest_size=8, key=f"{place} {number} {label}".encode())
    return int.from_bytes(hashed.digest(), "little")


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Memory for bytes that JAX on CPU takes as it is; NumPy's own it copies to each device."""
    size = math.prod(shape)
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].reshape(shape)
