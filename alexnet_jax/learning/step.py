"""One step of learning over the mesh.

The loss is computed inside `shard_map`, where `cross` can reach the other towers, and ends in a sum over the
whole mesh. The gradient is taken outside: averaging gradients by hand inside would be silently wrong. The
update then needs no communication, as weights, gradients and velocity are cut alike.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import optax
from flax import nnx
from jax import lax
from jax import numpy as jnp
from jax.sharding import Mesh

from alexnet_jax.config import Config, NetworkConfig
from alexnet_jax.learning.augment import Colours, Pixels, draw_colours, random_view, shared
from alexnet_jax.learning.metrics import Totals, score
from alexnet_jax.learning.optimizer import make_optimizer
from alexnet_jax.learning.schedule import Pace
from alexnet_jax.learning.spread import Params, compile_on, over_mesh, spread
from alexnet_jax.mesh import EVERYWHERE, PARAMETERS, TOWER, shard
from alexnet_jax.network.alexnet import AlexNet

WEIGHTS, TRAINING = 0, 1  # what a seed is used for


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """Everything that learning changes."""

    step: jax.Array
    params: Params
    averages: Params  # of batch normalisation, where there is any
    velocity: optax.OptState


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """Rows of a packed data set; a label of -1 marks padding."""

    pictures: jax.Array  # u8[B, S, S, 3]
    labels: jax.Array  # i32[B]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Health:
    """What a step found: where one of these is no number, it has changed nothing."""

    loss: jax.Array
    norms: jax.Array  # of each layer's gradient


TrainStep = Callable[[State, Totals, Pixels, Batch, Pace], tuple[State, Totals, Health]]


def network_graph(config: NetworkConfig) -> nnx.GraphDef:
    """The network without its numbers: `nnx.merge` it with parameters and averages, and call."""
    model = nnx.eval_shape(lambda: AlexNet(config, nnx.Rngs(params=0)))
    return nnx.split(model, nnx.Param, nnx.BatchStat)[0]


def state_shapes(config: Config) -> State:
    """Shapes and types of a state."""
    return jax.eval_shape(lambda: _initial_state(config))


def state_shardings(config: Config, mesh: Mesh) -> State:
    """Everything by tower, but for the step number."""
    by_tower = jax.tree.map(lambda _: shard(mesh, PARAMETERS), state_shapes(config))
    return dataclasses.replace(by_tower, step=shard(mesh, EVERYWHERE))


def abstract_state(config: Config, mesh: Mesh) -> State:
    """Shapes, types and places of a state, with no memory behind them."""
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        state_shapes(config),
        state_shardings(config, mesh),
    )


def init_state(config: Config, mesh: Mesh) -> State:
    """The first state, the same on any mesh; each device draws its own towers only."""
    # Run once: half the optimisation halves the wait for its compilation, and draws the same numbers.
    options = {"xla_backend_optimization_level": 1}
    places = state_shardings(config, mesh)
    return jax.jit(lambda: _initial_state(config), out_shardings=places, compiler_options=options)()


def no_totals(mesh: Mesh) -> Totals:
    """What a first step adds to, placed as steps leave it: otherwise the second would be compiled again."""
    return jax.device_put(Totals.zero(), shard(mesh, EVERYWHERE))


def make_train_step(config: Config, mesh: Mesh) -> TrainStep:
    """The compiled step: (state, totals so far, pixels, batch, pace) -> (state, totals, health)."""
    graph, optimizer = network_graph(config.network), make_optimizer(config.optimizer)
    augment = config.augment

    def body(
        params: Params,
        averages: Params,
        pixels: Pixels,
        batch: Batch,
        view_keys: jax.Array,
        colours: Colours,
        dropout_keys: jax.Array,
    ) -> tuple[Totals, Params]:
        look = partial(random_view, size=config.network.image_size, config=augment)
        views = jax.vmap(look, in_axes=(0, 0, 0, None))(batch.pictures, view_keys, colours, pixels)
        model = nnx.merge(graph, params, averages)
        totals = score(jax.nn.log_softmax(model(views, dropout_keys)), batch.labels)
        return totals, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    def step(
        state: State, totals: Totals, pixels: Pixels, batch: Batch, pace: Pace
    ) -> tuple[State, Totals, Health]:
        # Every device draws for all rows: cut arrays may round in another way, and gathering them costs more.
        whole = partial(lax.with_sharding_constraint, shardings=shard(mesh, EVERYWHERE))
        keys = whole(example_keys(config.seed, state.step, batch.labels.shape[0]))
        view_keys, colour_keys, dropout_keys = jnp.unstack(keys, axis=1)
        view_keys = shared(view_keys, augment.shared_by)
        colours = whole(draw_colours(colour_keys, pixels, pace.colour, augment))

        def loss(params: Params) -> tuple[jax.Array, tuple[Totals, Params]]:
            rows = (batch, view_keys, colours, dropout_keys)
            sums, averages = over_mesh(body, mesh, config.train.blocks)(params, state.averages, pixels, *rows)
            return sums.loss / sums.images, (sums, averages)

        gradients, (sums, averages) = jax.grad(loss, has_aux=True)(state.params)
        updates, velocity = optimizer.update(gradients, state.velocity, state.params, rates=pace.rates)
        params = optax.apply_updates(state.params, updates)
        new = State(state.step + 1, params, averages, velocity)
        health = Health(sums.loss / sums.images, _norms(gradients, mesh))
        finite = jnp.isfinite(health.loss) & jnp.all(jnp.isfinite(health.norms))
        return jax.tree.map(partial(jnp.where, finite), new, state), totals + sums, health

    places = (state_shardings(config, mesh), shard(mesh, EVERYWHERE), shard(mesh, EVERYWHERE))
    return compile_on(mesh, step, out_shardings=places, donate_argnums=0)


def stream(seed: int, purpose: int) -> jax.Array:
    """The seed's key for a purpose: no two draw the same numbers."""
    return jax.random.fold_in(jax.random.key(seed), purpose)


def example_keys(seed: int, step: jax.Array, batch_size: int) -> jax.Array:
    """Three keys for each example, from the seed, the step and its place in the global batch alone."""
    key = jax.random.fold_in(stream(seed, TRAINING), step)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(batch_size))
    return jax.vmap(partial(jax.random.split, num=3))(keys)


def _norms(gradients: Params, mesh: Mesh) -> jax.Array:
    """f32[layers]: every device knows those of all towers."""

    def body(gradients: Params) -> jax.Array:
        layers = [jax.tree.leaves(layer) for layer in gradients.values()]
        return lax.psum(jnp.stack([sum(jnp.sum(x * x) for x in leaves) for leaves in layers]), TOWER)

    return jnp.sqrt(spread(body, mesh, PARAMETERS, EVERYWHERE)(gradients))


def _initial_state(config: Config) -> State:
    model = AlexNet(config.network, nnx.Rngs(params=stream(config.seed, WEIGHTS)))
    params, averages = (nnx.to_pure_dict(nnx.state(model, kind)) for kind in (nnx.Param, nnx.BatchStat))
    return State(jnp.zeros((), jnp.int32), params, averages, make_optimizer(config.optimizer).init(params))
