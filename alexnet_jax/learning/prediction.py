"""What a network makes of pictures: error counts, probabilities, and what each stage hands on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
from flax import nnx
from jax import lax
from jax import numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from alexnet_jax.config import Config
from alexnet_jax.learning.augment import Pixels, fixed_views
from alexnet_jax.learning.metrics import Totals, score
from alexnet_jax.learning.spread import Params, compile_on, spread
from alexnet_jax.learning.step import Batch, State, network_graph
from alexnet_jax.mesh import EVERYWHERE, PARAMETERS, TOWER, row_spec, shard
from alexnet_jax.network.alexnet import stage_names
from alexnet_jax.network.layers import Towers


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Look:
    """What one sees of some numbers, tower by tower: f32[towers] each."""

    mean: jax.Array
    deviation: jax.Array
    zeros: jax.Array  # their share
    norm: jax.Array

    @classmethod
    def at(cls, x: jax.Array) -> "Look":
        """Of numbers x [towers, ...]."""
        axes, x = tuple(range(1, x.ndim)), x.astype(jnp.float32)
        zeros = jnp.mean((x == 0).astype(jnp.float32), axes)
        return cls(jnp.mean(x, axes), jnp.std(x, axes), zeros, jnp.sqrt(jnp.sum(jnp.square(x), axes)))


EvaluationStep = Callable[[State, Totals, Pixels, Batch], Totals]
PredictionStep = Callable[[State, Pixels, jax.Array], jax.Array]
StageStep = Callable[[State, Pixels, jax.Array], dict[str, jax.Array]]
LookStep = Callable[[State, Pixels, Batch], dict[str, tuple[Look, Look]]]


def make_evaluation_step(config: Config, mesh: Mesh, views: int) -> EvaluationStep:
    """The compiled step: (state, totals, pixels, batch) -> totals."""
    predict = _prediction(config, mesh, views)
    # Every device counts all rows: what it adds up does not depend on how they are cut.
    whole = partial(lax.with_sharding_constraint, shardings=shard(mesh, EVERYWHERE))

    def step(state: State, totals: Totals, pixels: Pixels, batch: Batch) -> Totals:
        return totals + score(whole(predict(state, pixels, batch.pictures)), whole(batch.labels))

    return compile_on(mesh, step, out_shardings=shard(mesh, EVERYWHERE))


def make_prediction_step(config: Config, mesh: Mesh, views: int) -> PredictionStep:
    """The compiled step: (state, pixels, pictures) -> log-probabilities [B, classes], everywhere."""
    return compile_on(mesh, _prediction(config, mesh, views), out_shardings=shard(mesh, EVERYWHERE))


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
    asked = spread(body, mesh, given, rows)
    return lambda state, pixels, pictures: asked(state.params, state.averages, pixels, pictures)


def make_stage_step(config: Config, mesh: Mesh, stages: tuple[str, ...]) -> StageStep:
    """The compiled step: (state, pixels, pictures) -> what stages make of their centres [towers, B, ...].

    A stage's towers lie where its parameters do, its pictures where their rows do.
    """
    graph, rows = network_graph(config.network), row_spec(mesh)

    def body(params: Params, averages: Params, pixels: Pixels, pictures: jax.Array) -> dict[str, jax.Array]:
        seen = {}

        def see(name: str, x: Towers) -> Towers:
            if name in stages:
                seen[name] = jnp.stack(x)
            return x

        images = fixed_views(pictures, pixels, config.network.image_size, 1, config.augment)[0]
        nnx.merge(graph, params, averages)(images, see=see)
        return seen

    given = (PARAMETERS, PARAMETERS, EVERYWHERE, rows)
    asked = spread(body, mesh, given, PartitionSpec(TOWER, *rows))
    return compile_on(mesh, lambda state, *looked_at: asked(state.params, state.averages, *looked_at))


def make_look_step(config: Config, mesh: Mesh) -> LookStep:
    """The compiled step: (state, pixels, batch) -> what stages hand on, and the loss's gradient there.

    Of centre views without dropout. What a stage hands on is changed by a `probe` of zeros, whose gradient is
    that of the stage.
    """
    graph, rows, stages = network_graph(config.network), row_spec(mesh), stage_names(config.network)
    axes = (TOWER, *rows)

    def body(
        probes: dict[str, jax.Array], params: Params, averages: Params, pixels: Pixels, batch: Batch
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        seen = {}

        def see(name: str, x: Towers) -> Towers:
            seen[name] = jnp.stack(x)
            return [tower + probe for tower, probe in zip(x, probes[name], strict=True)] if probes else x

        batch = lax.pcast(batch, TOWER, to="varying")
        params = lax.pcast(params, tuple(rows), to="varying") if rows else params
        images = fixed_views(batch.pictures, pixels, config.network.image_size, 1, config.augment)[0]
        scores = nnx.merge(graph, params, averages)(images, see=see)
        totals = lax.psum(score(jax.nn.log_softmax(scores), batch.labels), axes)
        return totals.loss / totals.images, seen

    by_stage = PartitionSpec(TOWER, *rows)
    given = (by_stage, PARAMETERS, PARAMETERS, EVERYWHERE, rows)
    asked = spread(body, mesh, given, (EVERYWHERE, by_stage))

    def step(state: State, pixels: Pixels, batch: Batch) -> dict[str, tuple[Look, Look]]:
        rest = (state.params, state.averages, pixels, batch)
        shapes = jax.eval_shape(lambda: asked({}, *rest)[1])
        probes = {name: jnp.zeros(x.shape, x.dtype) for name, x in shapes.items()}
        gradients, seen = jax.grad(lambda probes: asked(probes, *rest), has_aux=True)(probes)
        return {name: (Look.at(seen[name]), Look.at(gradients[name])) for name in stages}

    return compile_on(mesh, step, out_shardings=shard(mesh, EVERYWHERE))
