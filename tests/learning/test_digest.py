"""Fingerprints of arrays: the same on any mesh, another for any other bits."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from alexnet_jax.learning.digest import digests
from alexnet_jax.sharding.mesh import PARAMETERS, REPLICATED, make_mesh, shard

KINDS = (jnp.float32, jnp.int32, jnp.bfloat16, jnp.uint8, jnp.float64)


def by_hand(x: np.ndarray) -> str:
    """In Python's integers, number by number."""

    def mix(n: int, place: int) -> int:
        n = (n ^ place * 0x9E3779B1) % 2**32
        n = ((n ^ n >> 16) * 0x7FEB352D) % 2**32
        n = ((n ^ n >> 15) * 0x846CA68B) % 2**32
        return n ^ n >> 16

    rows = len(x) if x.ndim > 1 else 1
    folded = []
    for row in range(rows):
        words = np.frombuffer(x.reshape(rows, -1)[row].tobytes(), f"u{min(4, x.itemsize)}").tolist()
        words += [0] * (-len(words) % 8)
        mixed = [mix(word, row * len(words) + column) for column, word in enumerate(words)]
        length = len(words) // 8
        folded += [sum(mixed[first::length]) % 2**32 for first in range(length)]
    second = sum(mix(word, place) for place, word in enumerate(folded))
    return f"{sum(folded) % 2**32:08x}{second % 2**32:08x}"


def some(kind: jnp.dtype, *shape: int) -> np.ndarray:
    size = int(np.prod(shape)) * jnp.dtype(kind).itemsize
    return np.frombuffer(np.random.default_rng(0).bytes(size), kind).reshape(shape)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_by_hand(kind: jnp.dtype) -> None:
    with jax.enable_x64(kind == jnp.float64):
        x = some(kind, 2, 3, 5)
        assert digests({"a": [jnp.asarray(x)]}) == {"a/0": by_hand(x)}


def test_any_mesh() -> None:
    tree = {"cut": some(jnp.float32, 2, 7, 9), "whole": some(jnp.int32)}
    wanted = {name: by_hand(x) for name, x in tree.items()}
    for shape in ((1, 1), (1, 2), (2, 2), (4, 1), (4, 2)):
        mesh = make_mesh(*shape)
        places = {"cut": shard(mesh, PARAMETERS), "whole": shard(mesh, REPLICATED)}
        assert digests(jax.device_put(tree, places)) == wanted, shape


def test_changes() -> None:
    """One bit, anywhere; two numbers that change places; one that moves; zeros of another sign."""
    x = some(jnp.float32, 40)
    seen = {by_hand(x)}
    for bit in range(40 * 32):
        words = x.view(np.uint32).copy()
        words[bit // 32] ^= np.uint32(1 << bit % 32)
        seen.add(digests([words.view(np.float32)])["0"])
    swapped, moved = x.copy(), np.roll(x, 1)
    swapped[[3, 7]] = swapped[[7, 3]]
    seen |= {digests([y])["0"] for y in (swapped, moved, np.zeros(40, np.float32), -np.zeros(40, np.float32))}
    assert len(seen) == 1 + 40 * 32 + 4
