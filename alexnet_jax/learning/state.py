"""The state that a step of learning changes, and the batches of pictures that it reads."""

from dataclasses import dataclass, replace

import jax
import optax
from flax import nnx
from jax import numpy as jnp
from jax.sharding import Mesh

from alexnet_jax.config.fields import Config, NetworkConfig
from alexnet_jax.learning.optimizer import make_optimizer
from alexnet_jax.network.layers import Params
from alexnet_jax.network.variants import Network, make_network
from alexnet_jax.sharding.mesh import PARAMETERS, REPLICATED, shard
from alexnet_jax.sharding.platform import Form, cpu_options, platform_of

WEIGHTS, TRAINING = 0, 1  # what a seed is used for


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """The arrays that learning changes."""

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


def stream(seed: int, purpose: int) -> jax.Array:
    """The seed's key for a purpose: no two draw the same numbers."""
    return jax.random.fold_in(jax.random.key(seed), purpose)


def network_graph(config: NetworkConfig, form: Form) -> nnx.GraphDef[Network]:
    """The network without its numbers: `nnx.merge` it with parameters and averages, and call."""
    model = nnx.eval_shape(lambda: make_network(config, jax.random.key(0), form))
    return nnx.split(model, nnx.Param, nnx.BatchStat)[0]


def state_shapes(config: Config) -> State:
    """Shapes and types of a state."""
    return jax.eval_shape(lambda: _initial_state(config))


def state_shardings(config: Config, mesh: Mesh) -> State:
    """The sharding of each array: by tower, but for the step number."""
    by_tower = jax.tree.map(lambda _: shard(mesh, PARAMETERS), state_shapes(config))
    return replace(by_tower, step=shard(mesh, REPLICATED))


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
    options = cpu_options(platform_of(mesh), xla_backend_optimization_level=1)
    places = state_shardings(config, mesh)
    return jax.jit(lambda: _initial_state(config), out_shardings=places, compiler_options=options)()


def _initial_state(config: Config) -> State:
    model = make_network(config.network, stream(config.seed, WEIGHTS), "plain")
    params, averages = (nnx.to_pure_dict(nnx.state(model, kind)) for kind in (nnx.Param, nnx.BatchStat))
    return State(jnp.zeros((), jnp.int32), params, averages, make_optimizer(config.optimizer).init(params))
