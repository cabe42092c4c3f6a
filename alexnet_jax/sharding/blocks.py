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

from alexnet_jax.errors import ConfigError
from alexnet_jax.sharding.mesh import DATA
from alexnet_jax.sharding.spread import devices_along, vary


def sum_of_blocks(body: Callable[..., Any], each: Sequence[Any], rows: Any) -> Any:
    """The sum of `body(weights, *block)` over copies of the weights, each with a block of a device's rows."""
    split = jax.tree.map(lambda x: x.reshape(len(each), -1, *x.shape[1:]), rows)
    blocks = [jax.tree.map(lambda x, i=i: x[i], split) for i in range(len(each))]
    terms = [body(weights, *block) for weights, block in zip(each, blocks, strict=True)]
    return sum_over_rows(tree_sum(terms))


def tree_sum(terms: Sequence[Any]) -> Any:
    """The sum of a power of two of trees of arrays."""
    while len(terms) > 1:
        terms = [jax.tree.map(jnp.add, *pair) for pair in zip(terms[0::2], terms[1::2], strict=True)]
    return terms[0]


@jax.custom_vjp
def sum_over_rows(tree: Any) -> Any:
    """`lax.psum` over the rows of devices, but in the tree's order; it sends as much as a ring does.

    Each row adds up a part of the numbers, and tells the others.
    """
    rows = devices_along(DATA)
    if rows == 1:
        return tree
    numbers, restore = ravel_pytree(tree)
    parts = jnp.pad(numbers, (0, -numbers.size % rows)).reshape(rows, -1)
    part = tree_sum(list(lax.all_to_all(parts, DATA, split_axis=0, concat_axis=0)))
    return restore(lax.all_gather(part, DATA, tiled=True, to="invarying")[: numbers.size])


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def copies(weights: Any, count: int) -> list[Any]:
    """The weights for each block of each row of devices; their gradients are added as a tree."""
    return [vary(weights, DATA)] * count


sum_over_rows.defvjp(
    lambda tree: (sum_over_rows(tree), None),
    lambda _, gradient: (vary(gradient, DATA),),
)
copies.defvjp(
    lambda weights, count: (copies(weights, count), None),
    lambda _count, _, gradients: (_stored(sum_over_rows(tree_sum(gradients))),),
)


def _stored(tree: Any) -> Any:
    """Keeps the sum out of the loop that uses it.

    Whether a compiler rounds `a * b + c` once or twice depends on what else is in its loop, and that on
    the mesh (seen with jax 0.12: the last bits of velocities differed between 1x2 and 1x1).
    """
    return lax.optimization_barrier(tree)


def check_blocks(data_rows: int, blocks: int) -> None:
    """Refuses blocks that the mesh's rows cannot share evenly."""
    if blocks % data_rows:
        choices = " or ".join(str(2**n) for n in range(blocks.bit_length()))
        raise ConfigError(
            f"train.blocks={blocks} does not divide over the mesh's {data_rows} data rows; choose "
            f"--config.train.blocks=0, or --config.mesh.data={choices}"
        )
