"""The order of images, and reading them by it."""

import os
import shutil
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from alexnet_jax.config.fields import DataConfig, TrainConfig
from alexnet_jax.data.batches import PADDING, EvaluationOrder, PackedSet, TrainingOrder, read_batches
from alexnet_jax.data.packing import Work, pack
from alexnet_jax.data.shards import PackedForm
from alexnet_jax.errors import RefusedError
from configs.imagenet import PAPER
from tests.data.conftest import plan

READING = DataConfig("few", 72, "raw", "", read_ahead=2, threads=2, keep_mib=0, trace=True)


@given(
    seed=st.integers(0, 2**32 - 2),
    images=st.integers(1, 200),
    batch_size=st.integers(1, 250),
    other_size=st.integers(1, 250),
    fixed=st.booleans(),
)
def test_the_order(seed: int, images: int, batch_size: int, other_size: int, fixed: bool) -> None:
    """Three epochs laid end to end: each has every picture once, and depends on the seed alone, whatever the
    batches are; any of these is known without those before it.
    """

    def order(seed: int, size: int) -> TrainingOrder:
        return TrainingOrder(seed, images, size, fixed=fixed)

    whole = np.concatenate([order(seed, images)(epoch) for epoch in range(3)])
    for size in (batch_size, other_size):
        for step in reversed(range(3 * images // size)):
            assert order(seed, size)(step).tolist() == whole[size * step : size * (step + 1)].tolist()
    epochs = whole.reshape(3, images)
    assert (np.sort(epochs) == np.arange(images)).all()
    if images > 20:  # of fewer there may be two of the same
        first = order(seed + 1, images)(0)
        assert epochs[0].tolist() != sorted(first) and epochs[0].tolist() != first.tolist()
        assert len({tuple(epoch) for epoch in epochs}) == (1 if fixed else 3)


@given(
    images=st.integers(1, 200),
    batch_size=st.integers(1, 250),
    parts=st.integers(1, 7),
    fixed=st.booleans(),
)
def test_parts_end_with_short_batches(images: int, batch_size: int, parts: int, fixed: bool) -> None:
    """Two epochs: each has every picture once, part by part, in the order that it has without parts."""
    train = in_parts(batch_size, parts)
    found = TrainingOrder(3, images, batch_size, fixed=fixed, parts=train.parts_of(images))
    steps = train.epoch_steps(images)
    assert steps == int(steps)
    for epoch in range(2):
        wanted = TrainingOrder(3, images, images, fixed=fixed)(epoch)
        batches = [found(step) for step in range(epoch * int(steps), (epoch + 1) * int(steps))]
        assert {len(batch) for batch in batches} == {batch_size}
        real = [batch[batch != PADDING] for batch in batches]
        assert np.concatenate(real).tolist() == wanted.tolist()
        short = [number for number, batch in enumerate(real) if len(batch) < batch_size]
        assert len(short) <= parts
        ends = {images * part // parts for part in range(1, parts + 1)}
        assert {int(sum(map(len, real[: number + 1]))) for number in short} <= ends
        assert all(len(batch) for batch in real)


def test_the_sources_batches() -> None:
    """Five files of 10,000: 78 batches of 128 and one of 16 each."""
    train = in_parts(128, 5)
    order = TrainingOrder(0, 50_000, 128, fixed=True, parts=train.parts_of(50_000))
    assert (train.epoch_steps(50_000), train.length(50_000)) == (395, 395 * 90)
    assert [step for step in range(395) if np.sum(order(step) != PADDING) == 16] == [78, 157, 236, 315, 394]


@given(images=st.integers(1, 200), batch_size=st.integers(1, 250))
def test_evaluation_pads_the_last_batch(images: int, batch_size: int) -> None:
    """Every picture once, in order; only behind the last are there rows that do not count."""
    order = EvaluationOrder(images, batch_size)
    batches = [order(step).tolist() for step in range(order.batches)]
    assert {len(batch) for batch in batches} == {batch_size}
    padding = order.batches * batch_size - images
    assert [number for batch in batches for number in batch] == [*range(images), *[PADDING] * padding]
    assert padding < batch_size
    assert [order.real(step) for step in range(order.batches)] == [
        sum(number != PADDING for number in batch) for batch in batches
    ]


def in_parts(batch_size: int, parts: int) -> TrainConfig:
    return TrainConfig(**PAPER["train"] | {"batch_size": batch_size, "parts": parts})


def read(packed: PackedSet, steps: range, rows: np.ndarray) -> list:
    order = TrainingOrder(3, packed.images("train"), 16)
    return list(read_batches(packed, "train", order, steps, rows, READING))


def test_shards_are_one_set(packed: PackedSet, in_shards: Path) -> None:
    """Any row is found in any number of shards, and the files are opened once."""
    sharded = PackedSet(epath.Path(in_shards))
    for _ in range(3):
        for batch, wanted in zip(
            read(sharded, range(6), np.arange(16)), read(packed, range(6), np.arange(16)), strict=True
        ):
            for found, part in zip(batch, wanted, strict=True):
                np.testing.assert_array_equal(found, part)
    opened = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    shards = [path for path in opened if path.is_relative_to(in_shards) and "train" in path.name]
    assert len(shards) == 3


def test_files_are_closed_again(packed_path: Path) -> None:
    """Files close with the set, whether all of it was read or not: a notebook may open many."""

    def files() -> int:
        descriptors = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        return sum(packed_path in path.readlink().parents for path in descriptors)

    before = files()  # of other tests
    for whole in (True, False):
        packed, closed = PackedSet(epath.Path(packed_path)), threading.Event()
        weakref.finalize(packed.table("train")._source, closed.set)
        order = TrainingOrder(3, packed.images("train"), 16)
        batches = read_batches(packed, "train", order, range(5), np.arange(16), READING)
        next(batches)
        assert files() > before
        if whole:
            assert len(list(batches)) == 4
        del packed, batches
        assert closed.wait(300)  # a thread may be at its last rows
        assert files() == before


def test_small_sets_are_read_once(packed_path: Path, tmp_path: Path) -> None:
    """Rows of a set in memory are there when its files are not; others are read again."""
    shutil.copytree(packed_path, tmp_path / "copy")
    sets = {keep_mib: PackedSet(epath.Path(tmp_path / "copy"), keep_mib) for keep_mib in (0, 1)}
    before = {keep_mib: read(each, range(5), np.arange(16)) for keep_mib, each in sets.items()}
    for file in (tmp_path / "copy").glob("*train.array_record*"):
        os.truncate(file, 0)
    after = read(sets[1], range(5), np.arange(16))
    for batches in zip(before[0], before[1], after, strict=True):
        for columns in zip(*batches, strict=True):
            np.testing.assert_array_equal(columns[1], columns[0])
            np.testing.assert_array_equal(columns[2], columns[0])
    with pytest.raises(RefusedError, match=r"the train pictures in .* cannot be read"):
        read(sets[0], range(5), np.arange(16))


LEAVING = """
import contextlib, sys, time
from etils import epath
from alexnet_jax.config.fields import DataConfig
from alexnet_jax.data.batches import PackedSet, TrainingOrder
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.training.feed import feed

order = TrainingOrder(seed=0, images=40, batch_size=4)

def slow(step):
    time.sleep(0.3)
    return order(step)

packed = PackedSet(epath.Path(sys.argv[1]))
config = DataConfig("few", 72, "raw", "", read_ahead=4, threads=2, keep_mib=0, trace=False)
with contextlib.closing(feed(packed, "train", slow, range(1000), make_mesh(1, 1), config)) as batches:
    for _ in batches:
        sys.exit(42)
"""


@pytest.mark.slow
def test_leaving_early_does_not_hang(packed_path: Path) -> None:
    """A process ends while its readers are at work."""
    found = subprocess.run([sys.executable, "-c", LEAVING, packed_path], timeout=300, check=False)
    assert found.returncode == 42


DAMAGED = """
import sys
import numpy as np
from etils import epath
from alexnet_jax.config.fields import DataConfig
from alexnet_jax.data.batches import PackedSet, TrainingOrder, read_batches
from alexnet_jax.errors import RefusedError

for path, encoding in zip(sys.argv[1:], ("raw", "jpeg")):
    config = DataConfig("few", 72, encoding, "", read_ahead=4, threads=2, keep_mib=0, trace=False)
    try:
        packed = PackedSet(epath.Path(path))
        list(read_batches(packed, "train", TrainingOrder(0, 40, 4), range(20), np.arange(4), config))
    except RefusedError as error:
        print(error)
"""


@pytest.mark.slow
def test_damage_is_told_in_one_line(few: tfds.core.DatasetBuilder, tmp_path: Path) -> None:
    """TensorFlow would add a traceback for every thread that meets it."""
    paths = [tmp_path / f"few-72-{encoding}" for encoding in ("raw", "jpeg")]
    for path, encoding in zip(paths, ("raw", "jpeg"), strict=True):
        assert pack(plan(few, path, PackedForm(72, encoding)), Work())
        (file,) = path.glob("*train.array_record*")
        os.truncate(file, file.stat().st_size // 2)
    command = [sys.executable, "-c", DAMAGED, *paths]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    for path, line in zip(paths, found.stdout.splitlines(), strict=True):
        assert line.startswith(f"the train pictures in {path} cannot be read; this says what is damaged: ")
    assert found.stderr == ""


def test_rows_are_those_asked_for(packed: PackedSet) -> None:
    """Any process's rows, from any step on, are the same rows of the whole."""
    whole = read(packed, range(6), np.arange(16))
    rows = np.array([2, 3, 10, 11])
    for part, batch in zip(read(packed, range(4, 6), rows), whole[4:], strict=True):
        for found, wanted in zip(part[:2], batch[:2], strict=True):
            np.testing.assert_array_equal(found, wanted[rows])
    pictures, labels, _ = whole[0]
    assert (pictures.shape, pictures.dtype) == ((16, 72, 72, 3), np.uint8)
    assert labels.dtype == np.int32


@pytest.mark.parametrize("batch_size", [7, 20, 64])
def test_evaluation_reads_each_once(packed: PackedSet, batch_size: int) -> None:
    order = EvaluationOrder(20, batch_size)
    rows = np.arange(batch_size)
    batches = list(read_batches(packed, "validation", order, range(order.batches), rows, READING))
    labels = np.concatenate([labels for _, labels, _ in batches])
    assert np.sum(labels == PADDING) == order.batches * batch_size - 20
    assert np.bincount(labels[labels >= 0]).tolist() == [2] * 10
