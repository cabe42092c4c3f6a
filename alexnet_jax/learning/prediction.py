"""Steps that change nothing: evaluation, prediction, activations and their statistics."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
from flax import nnx
from jax import lax
from jax import numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from alexnet_jax.config.fields import Config
from alexnet_jax.learning.augment import Pixels, fixed_views
from alexnet_jax.learning.metrics import Totals, score
from alexnet_jax.learning.state import Batch, State, network_graph
from alexnet_jax.network.layers import Params, Towers
from alexnet_jax.network.shapes import stage_names
from alexnet_jax.sharding.mesh import DATA, PARAMETERS, REPLICATED, ROWS, TOWER, shard
from alexnet_jax.sharding.platform import compile_on, form_on, platform_of
from alexnet_jax.sharding.spread import spread, total, vary


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TowerStatistics:
    """Statistics of activations or of their gradients, tower by tower: f32[towers] each."""

    mean: jax.Array
    deviation: jax.Array
    zeros: jax.Array  # the share of numbers that are 0
    norm: jax.Array

    @classmethod
    def of(cls, x: jax.Array) -> "TowerStatistics":
        """Statistics of x [towers, ...]."""
        axes, x = tuple(range(1, x.ndim)), x.astype(jnp.float32)
        zeros = jnp.mean((x == 0).astype(jnp.float32), axes)
        return cls(jnp.mean(x, axes), jnp.std(x, axes), zeros, jnp.sqrt(jnp.sum(jnp.square(x), axes)))


BY_STAGE = PartitionSpec(TOWER, DATA)  # activations [towers, B, ...]

EvaluationStep = Callable[[State, Totals, Pixels, Batch], Totals]
PredictionStep = Callable[[State, Pixels, jax.Array], jax.Array]
ActivationStep = Callable[[State, Pixels, jax.Array], dict[str, jax.Array]]
StageStatistics = dict[str, tuple[TowerStatistics, TowerStatistics]]  # of activations and gradients
StatisticsStep = Callable[[State, Pixels, Batch], StageStatistics]


def make_evaluation_step(config: Config, mesh: Mesh, views: int) -> EvaluationStep:
    """The compiled step: (state, totals, pixels, batch) -> totals."""
    predict = _prediction(config, mesh, views)
    # Every device counts all rows: then the sums do not depend on how they are split.
    whole = partial(lax.with_sharding_constraint, shardings=shard(mesh, REPLICATED))

    def step(state: State, totals: Totals, pixels: Pixels, batch: Batch) -> Totals:
        return totals + score(whole(predict(state, pixels, batch.pictures)), whole(batch.labels))

    return compile_on(mesh, step, out_shardings=shard(mesh, REPLICATED))


def make_prediction_step(config: Config, mesh: Mesh, views: int) -> PredictionStep:
    """The compiled step: (state, pixels, pictures) -> log-probabilities [B, classes], everywhere."""
    return compile_on(mesh, _prediction(config, mesh, views), out_shardings=shard(mesh, REPLICATED))


def _prediction(config: Config, mesh: Mesh, views: int) -> PredictionStep:
    """Log-probabilities of pictures, averaged (the probabilities) over views."""
    graph = network_graph(config.network, form_on(platform_of(mesh)))

    def body(params: Params, averages: Params, pixels: Pixels, pictures: jax.Array) -> jax.Array:
        images = fixed_views(pictures, pixels, config.network.image_size, views, config.augment)
        scores = nnx.merge(graph, params, averages)(images.reshape(-1, *images.shape[2:]))
        each = jax.nn.log_softmax(scores).reshape(views, -1, config.network.classes)
        return jax.nn.logsumexp(each, axis=0) - jnp.log(views)

    predict = spread(body, mesh, (PARAMETERS, PARAMETERS, REPLICATED, ROWS), ROWS)
    return lambda state, pixels, pictures: predict(state.params, state.averages, pixels, pictures)


def make_activation_step(config: Config, mesh: Mesh, stages: tuple[str, ...]) -> ActivationStep:
    """The compiled step: (state, pixels, pictures) -> activations [towers, B, ...] of some stages at test.

    They lie where their parameters and their rows do. Flax's own `sow` is deprecated outside of
    `nnx.capture`, stores what it is given in the module, and cannot perturb towers in one call: `tap` can.
    """
    graph = network_graph(config.network, form_on(platform_of(mesh)))

    def body(params: Params, averages: Params, pixels: Pixels, pictures: jax.Array) -> dict[str, jax.Array]:
        found = {}

        def tap(name: str, x: Towers) -> Towers:
            if name in stages:
                found[name] = jnp.stack(x)
            return x

        images = fixed_views(pictures, pixels, config.network.image_size, 1, config.augment)[0]
        nnx.merge(graph, params, averages)(images, tap=tap)
        return found

    activations = spread(body, mesh, (PARAMETERS, PARAMETERS, REPLICATED, ROWS), BY_STAGE)
    return compile_on(mesh, lambda state, *rows: activations(state.params, state.averages, *rows))


def make_statistics_step(config: Config, mesh: Mesh) -> StatisticsStep:
    """The compiled step: (state, pixels, batch) -> statistics of each stage and of the loss's gradient there.

    Of centre views without dropout. Zeros (`probes`) are added to a stage's activations: their gradient is
    that of the stage.
    """
    graph = network_graph(config.network, form_on(platform_of(mesh)))

    def body(
        probes: dict[str, jax.Array], params: Params, averages: Params, pixels: Pixels, batch: Batch
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        found = {}

        def tap(name: str, x: Towers) -> Towers:
            found[name] = jnp.stack(x)
            return [tower + probe for tower, probe in zip(x, probes[name], strict=True)] if probes else x

        images = fixed_views(batch.pictures, pixels, config.network.image_size, 1, config.augment)[0]
        scores = nnx.merge(graph, vary(params, DATA), averages)(images, tap=tap)
        totals = total(score(jax.nn.log_softmax(scores), batch.labels), DATA)
        return totals.loss / totals.images, found

    specs = (BY_STAGE, PARAMETERS, PARAMETERS, REPLICATED, ROWS)
    loss = spread(body, mesh, specs, (REPLICATED, BY_STAGE))

    def step(
        state: State, pixels: Pixels, batch: Batch
    ) -> dict[str, tuple[TowerStatistics, TowerStatistics]]:
        rest = (state.params, state.averages, pixels, batch)
        shapes = jax.eval_shape(lambda: loss({}, *rest)[1])
        probes = {name: jnp.zeros(x.shape, x.dtype) for name, x in shapes.items()}
        gradients, found = jax.grad(lambda probes: loss(probes, *rest), has_aux=True)(probes)
        return {
            name: (TowerStatistics.of(found[name]), TowerStatistics.of(gradients[name]))
            for name in stage_names(config.network)
        }

    return compile_on(mesh, step, out_shardings=shard(mesh, REPLICATED))
