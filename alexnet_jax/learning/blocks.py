"""Sums over a batch in one order, whatever the mesh.

A sum in float32 depends on its order, and learning magnifies what differs; an all-reduce adds in the order
that suits the machines. Here a batch is cut into blocks, each is computed by itself, and they are added as a
balanced tree: neighbours first, then neighbours of those. A device adds the blocks that it holds, and rows of
devices go on where it ends: the same tree, wherever it is cut.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp
from jax.flatten_util import ravel_pytree

from alexnet_jax.learning.metrics import Totals
from alexnet_jax.mesh import DATA


def sum_of_blocks(body: Callable[..., Totals], each: Sequence[Any], rows: Any) -> Totals:
    """Of `body(weights, *block)` for each copy of the weights and a block of this device's rows."""
    cut = jax.tree.map(lambda x: x.reshape(len(each), -1, *x.shape[1:]), rows)
    blocks = [jax.tree.map(lambda x, i=i: x[i], cut) for i in range(len(each))]
    return over_rows(tree_sum([body(weights, *block) for weights, block in zip(each, blocks, strict=True)]))


def tree_sum(terms: Sequence[Any]) -> Any:
    """The sum of a power of two of trees of arrays."""
    while len(terms) > 1:
        terms = [jax.tree.map(jnp.add, *pair) for pair in zip(terms[0::2], terms[1::2], strict=True)]
    return terms[0]


@jax.custom_vjp
def over_rows(tree: Any) -> Any:
    """What `lax.psum` over the rows of devices gives, in the tree's order and with a ring's bytes.

    Each row adds up a part of the numbers, and tells the others.
    """
    rows = lax.axis_size(DATA)
    if rows == 1:
        return tree
    numbers, restore = ravel_pytree(tree)
    parts = jnp.pad(numbers, (0, -numbers.size % rows)).reshape(rows, -1)
    part = tree_sum(list(lax.all_to_all(parts, DATA, split_axis=0, concat_axis=0)))
    return restore(lax.all_gather(part, DATA, tiled=True, to="invarying")[: numbers.size])


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def copies(weights: Any, count: int) -> list[Any]:
    """Weights for each block of each row of devices; backwards, their gradients are added as a tree."""
    return [_to_rows(weights)] * count


over_rows.defvjp(
    lambda tree: (over_rows(tree), None),
    lambda _, gradient: (_to_rows(gradient),),
)
copies.defvjp(
    lambda weights, count: (copies(weights, count), None),
    lambda _count, _, gradients: (over_rows(tree_sum(gradients)),),
)


def _to_rows(tree: Any) -> Any:
    return lax.pcast(tree, DATA, to="varying") if lax.axis_size(DATA) > 1 else tree
