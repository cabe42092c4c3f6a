"""A batch is split by rows: which of them a process loads, and how they become one global array."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.errors import ConfigError
from alexnet_jax.sharding.mesh import ROWS, shard


def batch_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """The rows of a global batch that this process must load: those that its own devices hold."""
    slices = shard(mesh, ROWS).addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[rows] for rows in slices]))


def place_rows(mesh: Mesh, rows: np.ndarray, local: np.ndarray, batch_size: int) -> jax.Array:
    """The global array of a batch, from the rows (`batch_rows`) that this process has loaded."""

    def piece(index: Any) -> np.ndarray:
        start, stop, _ = index[0].indices(batch_size)
        first = np.searchsorted(rows, start)
        return local[first : first + stop - start]

    shape = (batch_size, *local.shape[1:])
    return jax.make_array_from_callback(shape, shard(mesh, ROWS), piece)


def check_batch(data_rows: int, name: str, size: int) -> None:
    """Refuses a batch that the mesh's rows cannot share evenly; `name` is how the user chooses its size."""
    if size % data_rows:
        below, above = size // data_rows * data_rows, (size // data_rows + 1) * data_rows
        choices = f"{below} or {above}" if below else f"{above} or {above + data_rows}"
        raise ConfigError(
            f"{name}={size} does not divide over the mesh's {data_rows} data rows; choose {choices}"
        )
