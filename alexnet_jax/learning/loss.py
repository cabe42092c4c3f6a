"""The loss over the mesh: every device computes that of its own rows in its own towers, which are summed.

The gradient is taken outside of `shard_map`: averaging gradients by hand inside would be silently wrong.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from flax import nnx
from jax import numpy as jnp
from jax.sharding import Mesh
from jax.typing import ArrayLike

from alexnet_jax.config.fields import AugmentConfig, Config
from alexnet_jax.learning.augment import Colours, Pixels, draw_colours, random_view, shared
from alexnet_jax.learning.metrics import Totals, score
from alexnet_jax.learning.state import TRAINING, Batch, network_graph, stream
from alexnet_jax.network.layers import Params
from alexnet_jax.sharding.blocks import copies, sum_of_blocks
from alexnet_jax.sharding.mesh import DATA, PARAMETERS, REPLICATED, ROWS
from alexnet_jax.sharding.platform import form_on, platform_of
from alexnet_jax.sharding.spread import devices_along, spread, total, vary


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Draws:
    """The random draws for each picture of a batch."""

    views: jax.Array  # keys[B] of crops and flips
    colours: Colours
    dropout: jax.Array  # keys[B]


Loss = Callable[[Params, Params, Pixels, Batch, Draws], tuple[Totals, Params]]


def make_loss(config: Config, mesh: Mesh) -> Loss:
    """(params, averages, pixels, batch, draws) -> totals of the whole batch, and the averages after it."""
    graph = network_graph(config.network, form_on(platform_of(mesh)))
    view = partial(random_view, size=config.network.image_size, config=config.augment)

    def own_loss(
        params: Params, averages: Params, pixels: Pixels, batch: Batch, draws: Draws
    ) -> tuple[Totals, Params]:
        """Totals of a device's own rows; after the last crossing all towers have the same scores."""
        views = jax.vmap(view, in_axes=(0, 0, 0, None))(batch.pictures, draws.views, draws.colours, pixels)
        model = nnx.merge(graph, params, averages)
        totals = score(jax.nn.log_softmax(model(views, draws.dropout)), batch.labels)
        return totals, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    def at_once(
        params: Params, averages: Params, pixels: Pixels, batch: Batch, draws: Draws
    ) -> tuple[Totals, Params]:
        params = _by_layer(lambda layer: vary(layer, DATA), params)
        totals, averages = own_loss(params, averages, pixels, batch, draws)
        return total(totals, DATA), averages

    def in_blocks(
        params: Params, averages: Params, pixels: Pixels, batch: Batch, draws: Draws
    ) -> tuple[Totals, Params]:
        here = config.train.blocks // devices_along(DATA)
        layers = _by_layer(lambda layer: copies(layer, here), params)
        each = [{name: layer[i] for name, layer in layers.items()} for i in range(here)]

        def block(params: Params, batch: Batch, draws: Draws) -> Totals:
            return own_loss(params, averages, pixels, batch, draws)[0]

        return sum_of_blocks(
            block, each, (batch, draws)
        ), averages  # no running ones: a block is not the batch

    body = in_blocks if config.train.blocks else at_once
    specs = (PARAMETERS, PARAMETERS, REPLICATED, ROWS, ROWS)
    return spread(body, mesh, specs, (REPLICATED, PARAMETERS))


def draw(
    seed: int, step: jax.Array, batch_size: int, pixels: Pixels, strength: ArrayLike, config: AugmentConfig
) -> Draws:
    """Draws for a batch, from the seed, the step and each picture's place in the global batch alone."""
    views, colours, dropout = jnp.unstack(example_keys(seed, step, batch_size), axis=1)
    return Draws(shared(views, config.shared_by), draw_colours(colours, pixels, strength, config), dropout)


def example_keys(seed: int, step: jax.Array, batch_size: int) -> jax.Array:
    """Three keys for each example: keys[B, 3]."""
    key = jax.random.fold_in(stream(seed, TRAINING), step)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(batch_size))
    return jax.vmap(partial(jax.random.split, num=3))(keys)


def _by_layer(function: Callable[[dict[str, jax.Array]], Any], params: Params) -> dict[str, Any]:
    """`function` of each layer's weights; the backward pass sums their gradients under the layer's name."""
    out = {}
    for name, layer in params.items():
        with jax.named_scope(name):
            out[name] = function(layer)
    return out
