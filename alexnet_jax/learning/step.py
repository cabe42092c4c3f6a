"""One step of learning, and one of evaluation, over the mesh.

The loss is computed inside `shard_map`, where `cross` can reach the other towers, and ends in a sum over the
whole mesh. The gradient is taken outside: averaging gradients by hand inside would be silently wrong. The
update then needs no communication, as weights, gradients and velocity are cut alike.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import optax
from flax import nnx
from jax import lax
from jax import numpy as jnp
from jax.sharding import Mesh

from alexnet_jax.config import Config, NetworkConfig
from alexnet_jax.learning.augment import (
    Colours,
    Pixels,
    draw_colours,
    fixed_views,
    random_view,
    shared,
)
from alexnet_jax.learning.metrics import Totals, score
from alexnet_jax.learning.optimizer import make_optimizer
from alexnet_jax.learning.schedule import Pace
from alexnet_jax.mesh import DATA, EVERYWHERE, PARAMETERS, TOWER, compiler_options, row_spec, shard
from alexnet_jax.network.alexnet import AlexNet

WEIGHTS, TRAINING = 0, 1  # what a seed is used for

Params = dict[str, dict[str, jax.Array]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """Everything that learning changes."""

    step: jax.Array
    params: Params
    velocity: optax.OptState


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """Rows of a packed data set; a label of -1 marks padding."""

    pictures: jax.Array  # u8[B, S, S, 3]
    labels: jax.Array  # i32[B]


TrainStep = Callable[[State, Totals, Pixels, Batch, Pace], tuple[State, Totals]]
EvaluationStep = Callable[[Params, Totals, Pixels, Batch], Totals]


def network_graph(config: NetworkConfig) -> nnx.GraphDef:
    """The network without its parameters: `nnx.merge` it with some, and call."""
    return nnx.split(nnx.eval_shape(lambda: AlexNet(config, nnx.Rngs(params=0))), nnx.Param)[0]


def state_shardings(config: Config, mesh: Mesh) -> State:
    """Parameters and velocity by tower, the step number everywhere."""
    shapes = jax.eval_shape(lambda: _initial_state(config))
    by_tower = partial(jax.tree.map, lambda _: shard(mesh, PARAMETERS))
    return State(shard(mesh, EVERYWHERE), by_tower(shapes.params), by_tower(shapes.velocity))


def abstract_state(config: Config, mesh: Mesh) -> State:
    """Shapes, types and places of a state, with no memory behind them."""
    shapes = jax.eval_shape(lambda: _initial_state(config))
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        shapes,
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
    """The compiled step: (state, totals so far, pixels, batch, pace) -> (state, totals)."""
    graph, optimizer = network_graph(config.network), make_optimizer(config.optimizer)
    augment = config.augment

    def body(
        params: Params,
        pixels: Pixels,
        batch: Batch,
        view_keys: jax.Array,
        colours: Colours,
        dropout_keys: jax.Array,
    ) -> Totals:
        look = partial(random_view, size=config.network.image_size, config=augment)
        views = jax.vmap(look, in_axes=(0, 0, 0, None))(batch.pictures, view_keys, colours, pixels)
        scores = nnx.merge(graph, params)(views, dropout_keys)
        return score(jax.nn.log_softmax(scores), batch.labels)

    def step(state: State, totals: Totals, pixels: Pixels, batch: Batch, pace: Pace) -> tuple[State, Totals]:
        # Every device draws for all rows: cut arrays may round in another way, and gathering them costs more.
        whole = partial(lax.with_sharding_constraint, shardings=shard(mesh, EVERYWHERE))
        keys = whole(example_keys(config.seed, state.step, batch.labels.shape[0]))
        view_keys, colour_keys, dropout_keys = jnp.unstack(keys, axis=1)
        view_keys = shared(view_keys, augment.shared_by)
        colours = whole(draw_colours(colour_keys, pixels, pace.colour, augment))

        def loss(params: Params) -> tuple[jax.Array, Totals]:
            sums = over_mesh(body, mesh)(params, pixels, batch, view_keys, colours, dropout_keys)
            return sums.loss / sums.images, sums

        gradients, sums = jax.grad(loss, has_aux=True)(state.params)
        updates, velocity = optimizer.update(gradients, state.velocity, state.params, rates=pace.rates)
        params = optax.apply_updates(state.params, updates)
        return State(state.step + 1, params, velocity), totals + sums

    places = (state_shardings(config, mesh), shard(mesh, EVERYWHERE))
    return _compile(step, mesh, out_shardings=places, donate_argnums=0)


def make_evaluation_step(config: Config, mesh: Mesh, views: int) -> EvaluationStep:
    """The compiled step: (params, totals, pixels, batch) -> totals, probabilities averaged over views."""
    graph = network_graph(config.network)

    def body(params: Params, pixels: Pixels, batch: Batch) -> Totals:
        images = fixed_views(batch.pictures, pixels, config.network.image_size, views, config.augment)
        scores = nnx.merge(graph, params)(images.reshape(-1, *images.shape[2:]))
        each = jax.nn.log_softmax(scores).reshape(views, -1, config.network.classes)
        mean = jax.nn.logsumexp(each, axis=0) - jnp.log(views)
        return score(mean, batch.labels)

    def step(params: Params, totals: Totals, pixels: Pixels, batch: Batch) -> Totals:
        return totals + over_mesh(body, mesh)(params, pixels, batch)

    return _compile(step, mesh, out_shardings=shard(mesh, EVERYWHERE))


def stream(seed: int, purpose: int) -> jax.Array:
    """The seed's key for a purpose: no two draw the same numbers."""
    return jax.random.fold_in(jax.random.key(seed), purpose)


def example_keys(seed: int, step: jax.Array, batch_size: int) -> jax.Array:
    """Three keys for each example, from the seed, the step and its place in the global batch alone."""
    key = jax.random.fold_in(stream(seed, TRAINING), step)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(batch_size))
    return jax.vmap(partial(jax.random.split, num=3))(keys)


def over_mesh(body: Callable[..., Totals], mesh: Mesh) -> Callable[..., Totals]:
    """Runs `body(params, pixels, *rows)` on each device's towers and rows, and sums its totals over all."""
    axes = (TOWER, DATA) if mesh.shape[DATA] > 1 else (TOWER,)

    def summed(params: Params, pixels: Pixels, *rows: Any) -> Totals:
        rows = lax.pcast(rows, TOWER, to="varying")  # every tower sees the same rows
        if DATA in axes:
            params = lax.pcast(params, DATA, to="varying")  # and here gradients are summed over rows
        return lax.psum(body(params, pixels, *rows), axes)

    def run(params: Params, pixels: Pixels, *rows: Any) -> Totals:
        specs = (PARAMETERS, EVERYWHERE, *(row_spec(mesh) for _ in rows))
        sums = jax.shard_map(summed, mesh=mesh, in_specs=specs, out_specs=EVERYWHERE)(params, pixels, *rows)
        # After the last crossing every tower has the same scores, and so the same totals.
        return jax.tree.map(lambda x: x / mesh.shape[TOWER], sums)

    return run


def _compile(step: Callable, mesh: Mesh, **options: Any) -> Callable:
    platform = mesh.devices.flat[0].platform
    return jax.jit(step, compiler_options=compiler_options(platform), **options)


def _initial_state(config: Config) -> State:
    model = AlexNet(config.network, nnx.Rngs(params=stream(config.seed, WEIGHTS)))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return State(jnp.zeros((), jnp.int32), params, make_optimizer(config.optimizer).init(params))
