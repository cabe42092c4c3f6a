"""Reads a packed set back: that every file holds the rows that were written, and every row a picture."""

import contextlib
import os
from collections.abc import Iterator

import tensorflow as tf

from alexnet_jax.data import workers
from alexnet_jax.data.batches import PackedSet
from alexnet_jax.data.packed import PackedFiles
from alexnet_jax.data.progress import Progress
from alexnet_jax.data.shards import PackedForm, RowDigest, read_shard
from alexnet_jax.errors import RefusedError
from alexnet_jax.text import first_line

COLUMNS = {"image": tf.io.FixedLenFeature((), tf.string), "label": tf.io.FixedLenFeature((), tf.int64)}


def verify(packed: PackedFiles, processes: int) -> None:
    """Refuses a packed set of which anything is not as it was written."""
    PackedSet(packed.path)  # refuses what it cannot open
    facts, form = packed.facts, PackedForm(**packed.facts["form"])
    files = {name: file for split in facts["splits"].values() for name, file in split["files"].items()}
    tasks = [
        (os.fspath(packed.path / name), file["rows"], file["digest"], form, facts["classes"])
        for name, file in files.items()
    ]
    found: list[str] = []
    with (
        Progress("verifying", sum(file["rows"] for file in files.values())) as progress,
        contextlib.closing(workers.run_tasks(check_file, tasks, processes)) as messages,
    ):
        for message in messages:
            if isinstance(message, dict):
                found.append(f"{message['file_name']}: {message['why']}")
            else:
                progress.update(message)
    if found:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise RefusedError(f"{packed.path} is damaged: {found[0]}{more}; delete it, and pack anew")


def check_file(
    path: str, rows: int, digest: str, form: PackedForm, classes: int
) -> Iterator[int | dict[str, str]]:
    """Yields 1 for each row that is right, and what is wrong."""
    name, read, digested = path.rpartition("/")[2], 0, RowDigest()
    try:
        for row in read_shard(path):
            digested.update(row)
            _check_row(row, form, classes)
            read += 1
            yield 1
    except (ValueError, RuntimeError, OSError, IndexError, tf.errors.OpError) as error:
        yield {"file_name": name, "why": f"row {read} cannot be read ({first_line(error):.100})"}
        return
    if read != rows:
        yield {"file_name": name, "why": f"it has {read} rows in place of {rows}"}
    elif digested.hexdigest() != digest:
        yield {"file_name": name, "why": "its rows are not those that were written"}


def _check_row(row: bytes, form: PackedForm, classes: int) -> None:
    columns = tf.io.parse_single_example(row, COLUMNS)
    image, label = columns["image"].numpy(), int(columns["label"])
    shape = (form.size, form.size, 3)
    if form.encoding == "jpeg" and tuple(tf.io.decode_jpeg(image).shape) != shape:
        raise ValueError("a picture of another size")
    if form.encoding == "raw" and len(image) != form.size**2 * 3:
        raise ValueError(f"{len(image)} bytes for {form.size} x {form.size} pixels")
    if not 0 <= label < classes:
        raise ValueError(f"label {label} of {classes} classes")
