"""One step of learning, and one of evaluation, over the mesh.

The loss is computed inside `shard_map`, where `cross` can reach the other towers, and ends in a sum over the
whole mesh. The gradient is taken outside: averaging gradients by hand inside would be silently wrong. The
update then needs no communication, as weights, gradients and velocity are cut alike.
"""

import dataclasses
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
from alexnet_jax.learning.blocks import copies, sum_of_blocks
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
EvaluationStep = Callable[[State, Totals, Pixels, Batch], Totals]
PredictionStep = Callable[[State, Pixels, jax.Array], jax.Array]


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
    return _compile(step, mesh, out_shardings=places, donate_argnums=0)


def make_evaluation_step(config: Config, mesh: Mesh, views: int) -> EvaluationStep:
    """The compiled step: (state, totals, pixels, batch) -> totals."""
    predict = _prediction(config, mesh, views)
    # Every device counts all rows: what it adds up does not depend on how they are cut.
    whole = partial(lax.with_sharding_constraint, shardings=shard(mesh, EVERYWHERE))

    def step(state: State, totals: Totals, pixels: Pixels, batch: Batch) -> Totals:
        return totals + score(whole(predict(state, pixels, batch.pictures)), whole(batch.labels))

    return _compile(step, mesh, out_shardings=shard(mesh, EVERYWHERE))


def make_prediction_step(config: Config, mesh: Mesh, views: int) -> PredictionStep:
    """The compiled step: (state, pixels, pictures) -> log-probabilities [B, classes], everywhere."""
    return _compile(_prediction(config, mesh, views), mesh, out_shardings=shard(mesh, EVERYWHERE))


def _prediction(config: Config, mesh: Mesh, views: int) -> PredictionStep:
    """Log-probabilities of pictures, averaged (the probabilities) over views."""
    graph, rows = network_graph(config.network), row_spec(mesh)

    def body(params: Params, averages: Params, pixels: Pixels, pictures: jax.Array) -> jax.Array:
        images = fixed_views(pictures, pixels, config.network.image_size, views, config.augment)
        scores = nnx.merge(graph, params, averages)(images.reshape(-1, *images.shape[2:]))
        each = jax.nn.log_softmax(scores).reshape(views, -1, config.network.classes)
        mean = jax.nn.logsumexp(each, axis=0) - jnp.log(views)
        return lax.pmax(mean, TOWER)  # after the last crossing every tower has the same

    given = (PARAMETERS, PARAMETERS, EVERYWHERE, rows)
    spread = jax.shard_map(body, mesh=mesh, in_specs=given, out_specs=rows)
    return lambda state, pixels, pictures: spread(state.params, state.averages, pixels, pictures)


def stream(seed: int, purpose: int) -> jax.Array:
    """The seed's key for a purpose: no two draw the same numbers."""
    return jax.random.fold_in(jax.random.key(seed), purpose)


def example_keys(seed: int, step: jax.Array, batch_size: int) -> jax.Array:
    """Three keys for each example, from the seed, the step and its place in the global batch alone."""
    key = jax.random.fold_in(stream(seed, TRAINING), step)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(batch_size))
    return jax.vmap(partial(jax.random.split, num=3))(keys)


Body = Callable[..., tuple[Totals, Params]]


def over_mesh(body: Body, mesh: Mesh, blocks: int) -> Body:
    """Runs `body(params, averages, pixels, *rows)` on each device's towers and rows, and sums its totals."""
    axes = (TOWER, DATA) if mesh.shape[DATA] > 1 else (TOWER,)

    def at_once(params: Params, averages: Params, pixels: Pixels, *rows: Any) -> tuple[Totals, Params]:
        rows = lax.pcast(rows, TOWER, to="varying")  # every tower sees the same rows
        if DATA in axes:
            params = {name: _cast_over_rows(name, layer) for name, layer in params.items()}
        totals, averages = body(params, averages, pixels, *rows)
        return lax.psum(totals, axes), averages

    def in_blocks(params: Params, averages: Params, pixels: Pixels, *rows: Any) -> tuple[Totals, Params]:
        rows = lax.pcast(rows, TOWER, to="varying")
        here = blocks // mesh.shape[DATA]
        layers = {name: _copies(name, layer, here) for name, layer in params.items()}
        each = [{name: layer[i] for name, layer in layers.items()} for i in range(here)]
        totals = sum_of_blocks(lambda one, *block: body(one, averages, pixels, *block)[0], each, rows)
        return lax.psum(totals, TOWER), averages  # no running ones: a block is not the batch

    def run(params: Params, averages: Params, pixels: Pixels, *rows: Any) -> tuple[Totals, Params]:
        given = (PARAMETERS, PARAMETERS, EVERYWHERE, *(row_spec(mesh) for _ in rows))
        places = {"mesh": mesh, "in_specs": given, "out_specs": (EVERYWHERE, PARAMETERS)}
        summed = jax.shard_map(in_blocks if blocks else at_once, **places)
        sums, averages = summed(params, averages, pixels, *rows)
        # After the last crossing every tower has the same scores, and so the same totals.
        return jax.tree.map(lambda x: x / mesh.shape[TOWER], sums), averages

    return run


def _norms(gradients: Params, mesh: Mesh) -> jax.Array:
    """f32[layers]: every device knows those of all towers."""

    def body(gradients: Params) -> jax.Array:
        layers = [jax.tree.leaves(layer) for layer in gradients.values()]
        return lax.psum(jnp.stack([sum(jnp.sum(x * x) for x in leaves) for leaves in layers]), TOWER)

    return jnp.sqrt(jax.shard_map(body, mesh=mesh, in_specs=PARAMETERS, out_specs=EVERYWHERE)(gradients))


def _cast_over_rows(name: str, layer: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """A layer's weights for each row of devices; backwards, its gradients are summed in its name."""
    with jax.named_scope(name):
        return lax.pcast(layer, DATA, to="varying")


def _copies(name: str, layer: dict[str, jax.Array], count: int) -> list[dict[str, jax.Array]]:
    """The same for each block of each row."""
    with jax.named_scope(name):
        return copies(layer, count)


def _compile(step: Callable, mesh: Mesh, **options: Any) -> Callable:
    platform = mesh.devices.flat[0].platform
    return jax.jit(step, compiler_options=compiler_options(platform), **options)


def _initial_state(config: Config) -> State:
    model = AlexNet(config.network, nnx.Rngs(params=stream(config.seed, WEIGHTS)))
    params, averages = (nnx.to_pure_dict(nnx.state(model, kind)) for kind in (nnx.Param, nnx.BatchStat))
    return State(jnp.zeros((), jnp.int32), params, averages, make_optimizer(config.optimizer).init(params))
