"""Feeds rows from disk to the mesh, a few batches ahead of their use."""

import collections
from collections.abc import Callable, Generator

import numpy as np
from jax.sharding import Mesh

from alexnet_jax.config.fields import DataConfig
from alexnet_jax.data.batches import PackedSet, read_batches
from alexnet_jax.learning.state import Batch
from alexnet_jax.sharding.rows import batch_rows, place_rows

ON_DEVICE = 2  # batches that wait there


def feed(
    packed: PackedSet,
    split: str,
    order: Callable[[int], np.ndarray],
    steps: range,
    mesh: Mesh,
    config: DataConfig,
    trace: Callable[[int, int], None] | None = None,
) -> Generator[Batch]:
    """The batch of each step; this process reads only the rows that its devices hold.

    `trace` is called with each step's digest as its batch is handed out. Close it when leaving early: the
    interpreter hangs at its end while a reading thread is under way.
    """
    if not steps:
        return
    size = len(order(steps.start))
    rows = batch_rows(mesh, size)
    waiting: collections.deque[tuple[int, int, Batch]] = collections.deque()

    def hand_out() -> Batch:
        step, digest, batch = waiting.popleft()
        if trace is not None:
            trace(step, digest)
        return batch

    read = read_batches(packed, split, order, steps, rows, config)
    for step, (images, labels, digest) in zip(steps, read, strict=True):
        batch = Batch(place_rows(mesh, rows, images, size), place_rows(mesh, rows, labels, size))
        waiting.append((step, int(digest), batch))
        if len(waiting) > ON_DEVICE:
            yield hand_out()
    while waiting:
        yield hand_out()
