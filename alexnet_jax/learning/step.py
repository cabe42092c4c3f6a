"""A step of learning (section 5): draw, loss and gradient, update."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import optax
from jax import lax
from jax import numpy as jnp
from jax.sharding import Mesh

from alexnet_jax.config.fields import Config
from alexnet_jax.learning.augment import Pixels
from alexnet_jax.learning.loss import draw, make_loss
from alexnet_jax.learning.metrics import Totals
from alexnet_jax.learning.optimizer import make_optimizer
from alexnet_jax.learning.schedule import Pace
from alexnet_jax.learning.state import Batch, State, state_shardings
from alexnet_jax.network.layers import Params
from alexnet_jax.sharding.mesh import PARAMETERS, REPLICATED, TOWER, shard
from alexnet_jax.sharding.platform import compile_on
from alexnet_jax.sharding.spread import spread, total


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Health:
    """A step's loss and gradient norms: where one of them is not finite, the step has changed nothing."""

    loss: jax.Array
    norms: jax.Array  # f32[layers], of each layer's gradient


TrainStep = Callable[[State, Totals, Pixels, Batch, Pace], tuple[State, Totals, Health]]


def make_train_step(config: Config, mesh: Mesh) -> TrainStep:
    """The compiled step: (state, totals so far, pixels, batch, pace) -> (state, totals, health).

    The update needs no communication: weights, gradients and velocity are split alike.
    """
    loss, norms = make_loss(config, mesh), spread(_norms, mesh, PARAMETERS, REPLICATED)
    optimizer = make_optimizer(config.optimizer)
    # Every device draws for all rows: split arrays may round in another way, and gathering them costs more.
    whole = partial(lax.with_sharding_constraint, shardings=shard(mesh, REPLICATED))

    def step(
        state: State, totals: Totals, pixels: Pixels, batch: Batch, pace: Pace
    ) -> tuple[State, Totals, Health]:
        draws = whole(draw(config.seed, state.step, len(batch.labels), pixels, pace.colour, config.augment))

        def mean_loss(params: Params) -> tuple[jax.Array, tuple[Totals, Params]]:
            sums, averages = loss(params, state.averages, pixels, batch, draws)
            return sums.loss / sums.images, (sums, averages)

        gradients, (sums, averages) = jax.grad(mean_loss, has_aux=True)(state.params)
        updates, velocity = optimizer.update(gradients, state.velocity, state.params, rates=pace.rates)
        params = optax.apply_updates(state.params, updates)
        new = State(state.step + 1, params, averages, velocity)
        health = Health(sums.loss / sums.images, norms(gradients))
        finite = jnp.isfinite(health.loss) & jnp.all(jnp.isfinite(health.norms))
        return jax.tree.map(partial(jnp.where, finite), new, state), totals + sums, health

    places = (state_shardings(config, mesh), shard(mesh, REPLICATED), shard(mesh, REPLICATED))
    return compile_on(mesh, step, out_shardings=places, donate_argnums=0)


def no_totals(mesh: Mesh) -> Totals:
    """Zeros for a first step, placed as steps leave their totals: else the second would compile again."""
    return jax.device_put(Totals.zero(), shard(mesh, REPLICATED))


def _norms(gradients: Params) -> jax.Array:
    """f32[layers], over all towers."""
    layers = [jax.tree.leaves(layer) for layer in gradients.values()]
    return jnp.sqrt(total(jnp.stack([sum(jnp.sum(x * x) for x in leaves) for leaves in layers]), TOWER))
