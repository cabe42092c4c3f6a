"""A fingerprint of every array, computed where it lies and the same on any mesh.

Each number's bits are mixed with its place, one to one, and eight are added up; these sums are added up too,
once as they are and once mixed again. No single change goes unnoticed, and others that are not made on
purpose are missed once in 2^64, or in 2^32 where all lie among the same eight. Sums of integers do not
depend on their order.
"""

from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

FOLD = 8  # what lies this many parts of a row apart is added first: unlike a sum of all, in vectors


def digests(tree: Any) -> dict[str, str]:
    """Sixteen hexadecimal digits for each array of a tree, by name."""
    named = jax.tree_util.tree_leaves_with_path(tree)
    found = np.asarray(_digests([leaf for _, leaf in named]))
    names = (jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in named)
    return {name: f"{high:08x}{low:08x}" for name, (high, low) in zip(names, found, strict=True)}


@jax.jit
def _digests(leaves: list[jax.Array]) -> jax.Array:
    return jnp.array([_digest(leaf) for leaf in leaves])


def _digest(leaf: jax.Array) -> jax.Array:
    """u32[2]"""
    bits = lax.bitcast_convert_type(leaf, _word(leaf.dtype)).astype(jnp.uint32)
    rows = leaf.shape[0] if leaf.ndim > 1 else 1  # as they may be cut between devices
    bits = bits.reshape(rows, bits.size // rows)
    bits = jnp.pad(bits, ((0, 0), (0, -bits.shape[1] % FOLD)))
    parts = jnp.split(_mixed(bits), FOLD, axis=1)
    folded = sum(parts[1:], parts[0])
    return jnp.stack([jnp.sum(x, dtype=jnp.uint32) for x in (folded, _mixed(folded))])


def _word(kind: np.dtype) -> np.dtype:
    """The unsigned integer of as many bits, or of 32, several to a number."""
    return np.dtype(f"uint{8 * min(4, kind.itemsize)}")


def _mixed(words: jax.Array) -> jax.Array:
    """32 bits to 32, one to one and in each place in another way: lowbias32 (C. Wellons, 2018)."""
    row, column = (lax.broadcasted_iota(jnp.uint32, words.shape, axis) for axis in (0, 1))
    place = row * jnp.uint32(words.shape[1]) + column
    x = words ^ (place * jnp.uint32(0x9E3779B1))
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
