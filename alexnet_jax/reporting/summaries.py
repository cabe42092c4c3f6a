"""Summaries of the weights: conv1's kernels as a picture, and a histogram of every array.

Both are made of the towers that this process holds, an array at a time: nothing is gathered, no device
computes. Counting takes about 6 ns a weight on a CPU core.
"""

from collections.abc import Iterator

import jax
import numpy as np

from alexnet_jax.network.layers import Params

COLUMNS, GAP, ENLARGED = 16, 1, 4  # kernels side by side, pixels between them, and how large each is drawn
BUCKETS = 50


def towers_here(array: jax.Array) -> dict[int, np.ndarray]:
    """The towers of a parameter that this process holds, by number."""
    found = {}
    for shard in array.addressable_shards:
        first = shard.index[0].start or 0
        if first not in found:  # each row of devices has a copy
            found[first] = np.asarray(shard.data)
    return {first + i: tower for first, towers in sorted(found.items()) for i, tower in enumerate(towers)}


def kernel_picture(kernel: jax.Array) -> np.ndarray | None:
    """u8[H, W, 3]: the kernels of each tower, tower 0 on top; grey is 0, and all have the same scale.

    None where they are not what a picture can show: kernels of their own at every place.
    """
    if kernel.ndim != 5 or kernel.shape[3] != 3:
        return None
    towers = towers_here(kernel)
    largest = max(np.abs(tower).max() for tower in towers.values()) or 1.0
    rows = [_tiles(0.5 + tower / (2 * largest)) for tower in towers.values()]
    between = np.ones((3 * GAP, rows[0].shape[1], 3), np.float32)
    parts = [part for row in rows for part in (row, between)][:-1]
    picture = np.concatenate(parts)
    return np.rint(255 * picture).astype(np.uint8).repeat(ENLARGED, 0).repeat(ENLARGED, 1)


def _tiles(kernels: np.ndarray) -> np.ndarray:
    """f32[height, width, 3] of kernels [k, k, 3, N], in rows, white between them."""
    size, count = kernels.shape[0], kernels.shape[3]
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    step = size + GAP
    picture = np.ones((rows * step - GAP, columns * step - GAP, 3), np.float32)
    for i in range(count):
        y, x = i // columns * step, i % columns * step
        picture[y : y + size, x : x + size] = kernels[..., i]
    return picture


def histograms(params: Params) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the name and the histogram, f64[buckets, 3] of left, right, count, of each array and tower."""
    for layer, arrays in params.items():
        for kind, array in arrays.items():
            for tower, values in towers_here(array).items():
                yield f"{layer}/{kind} tower {tower}", _buckets(values)


def _buckets(values: np.ndarray) -> np.ndarray:
    flat = values.reshape(-1)
    least, most = float(flat.min()), float(flat.max())
    if not (np.isfinite(least) and np.isfinite(most)):
        flat = flat[np.isfinite(flat)]
        least, most = float(flat.min(initial=0.0)), float(flat.max(initial=0.0))
    # Biases that all are nearly 1 leave no room in float32 for as many buckets between them.
    middle, half = (least + most) / 2, (most - least) / 2
    half = max(half, 1e-3 * abs(middle), 1e-9)
    counts, edges = np.histogram(flat, BUCKETS, (middle - half, middle + half))
    return np.stack([edges[:-1], edges[1:], counts], axis=1).astype(np.float64)
