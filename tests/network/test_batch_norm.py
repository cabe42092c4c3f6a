"""Batch normalisation on a mesh against NumPy over the whole batch."""

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from alexnet_jax.config.fields import BatchNormConfig
from alexnet_jax.network.batch_norm import BatchNorm
from alexnet_jax.sharding.mesh import PARAMETERS, make_mesh
from alexnet_jax.sharding.spread import spread

CONFIG = BatchNormConfig(epsilon=1e-4, decay=0.9)
TOWERS, ROWS, SIDE, MAPS = 2, 8, 3, 5


def normalise(x: np.ndarray, shape: tuple[int, int], averages: dict, *, training: bool) -> tuple:
    """x [towers, rows, side, side, maps] on a mesh: what comes out, and the averages afterwards."""
    graph, _ = nnx.split(BatchNorm(MAPS, TOWERS, CONFIG), nnx.BatchStat)
    spec = PartitionSpec("tower", "data")

    def body(averages: dict, x: jax.Array) -> tuple[jax.Array, dict]:
        norm = nnx.merge(graph, averages)
        out = jax.numpy.stack(norm(list(x), training=training))
        return out, nnx.to_pure_dict(nnx.state(norm, nnx.BatchStat))

    spread_out = spread(body, make_mesh(*shape), (PARAMETERS, spec), (spec, PARAMETERS))
    return jax.jit(spread_out)(averages, x)


def drawn() -> tuple[np.ndarray, dict]:
    """Maps far from standard, and averages that something has been learnt into."""
    rng = np.random.default_rng(0)
    x = rng.normal(rng.normal(0, 3, MAPS), rng.uniform(0.1, 4, MAPS), (TOWERS, ROWS, SIDE, SIDE, MAPS))
    shape = (TOWERS, MAPS)
    return x.astype(np.float32), {
        "mean": rng.normal(0, 1, shape).astype(np.float32),
        "variance": rng.uniform(0.5, 2, shape).astype(np.float32),
    }


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (4, 1), (2, 2)])
def test_training_sees_the_whole_batch(shape: tuple[int, int]) -> None:
    """Mean and variance over all rows, wherever they lie; averages move by a tenth of the way."""
    x, averages = drawn()
    out, after = normalise(x, shape, averages, training=True)
    mean, variance = (f(np.float64(x), axis=(1, 2, 3)) for f in (np.mean, np.var))
    wanted = (x - mean[:, None, None, None]) / np.sqrt(variance + 1e-4)[:, None, None, None]
    np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-5)
    for name, seen in (("mean", mean), ("variance", variance)):
        np.testing.assert_allclose(after[name], 0.9 * averages[name] + 0.1 * seen, rtol=1e-5, atol=1e-6)


def test_a_picture_is_judged_alone_at_test() -> None:
    """By the averages, which stay."""
    x, averages = drawn()
    out, after = normalise(x, (2, 2), averages, training=False)
    mean, variance = (averages[name][:, None, None, None] for name in ("mean", "variance"))
    np.testing.assert_allclose(out, (x - mean) / np.sqrt(variance + 1e-4), rtol=1e-5, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, after, averages)
