"""The update rule (section 5): v <- 0.9 v - 0.0005 lr w - lr g,  w <- w + v."""

from typing import Any

import jax
import optax

from alexnet_jax.config.fields import OptimizerConfig
from alexnet_jax.learning.schedule import Rates
from alexnet_jax.network.layers import Params


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    """The rule as an optax chain; `update` takes the `rates` of the step from the host.

    The rate is applied before the momentum: the velocity keeps what earlier, higher rates gave it.
    """

    def update(
        updates: Params, state: optax.EmptyState, params: Params | None = None, *, rates: Rates, **_: Any
    ) -> tuple[Params, optax.EmptyState]:
        assert params is not None
        own = {name: rates[name] for name in params}
        descent = jax.tree.map(_descend, updates, params, own, decays(config, params))
        return descent, state

    descend = optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
    return optax.chain(descend, optax.trace(config.momentum))


def _descend(gradient: jax.Array, w: jax.Array, rate: jax.Array, decay: float) -> jax.Array:
    return -rate * (gradient + decay * w)


def decays(config: OptimizerConfig, params: Params) -> dict[str, dict[str, float]]:
    """The weight decay of each layer's kernel and bias."""
    own = dict(config.layer_decay)

    def decay(name: str) -> dict[str, float]:
        kernel = own.get(name, config.weight_decay)
        return {"kernel": kernel, "bias": kernel if config.decay_biases else 0.0}

    return {name: decay(name) for name in params}
