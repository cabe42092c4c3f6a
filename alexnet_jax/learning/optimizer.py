"""The update rule (section 5): v <- 0.9 v - 0.0005 lr w - lr g,  w <- w + v."""

from typing import Any

import jax
import optax

from alexnet_jax.config import LAYERS, OptimizerConfig


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    """The rule as an optax chain; `update` takes the `rates` of the step, f32[layers, 2], from the host.

    The rate is applied before the momentum: the velocity keeps what earlier, higher rates gave it.
    """
    decays = dict(config.layer_decay)

    def scaled(path: tuple, gradient: jax.Array, w: jax.Array, rates: jax.Array) -> jax.Array:
        layer, kind = path[-2].key, path[-1].key
        decay = decays.get(layer, config.weight_decay) if kind == "kernel" or config.decay_biases else 0
        return -rates[LAYERS.index(layer), int(kind == "bias")] * (gradient + decay * w)

    def update(
        updates: Any, state: optax.EmptyState, params: Any = None, *, rates: jax.Array, **_: Any
    ) -> tuple[Any, optax.EmptyState]:
        return jax.tree.map_with_path(lambda *leaf: scaled(*leaf, rates), updates, params), state

    descend = optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
    return optax.chain(descend, optax.trace(config.momentum))
