"""The update rule (section 5): v <- 0.9 v - 0.0005 lr w - lr g,  w <- w + v."""

from typing import Any

import jax
import optax

from alexnet_jax.config import OptimizerConfig


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    """The rule as an optax chain; `update` takes the rate of the step as `learning_rate`.

    The rate is applied before the momentum: the velocity keeps what earlier, higher rates gave it.
    """

    def decayed(params: Any) -> Any:
        return jax.tree.map_with_path(lambda path, _: config.decay_biases or path[-1].key == "kernel", params)

    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, decayed),
        scale_by_rate(),
        optax.trace(config.momentum),
    )


def scale_by_rate() -> optax.GradientTransformationExtraArgs:
    """Multiplies by -learning_rate, which is an argument of `update`: a plateau is seen by the host."""

    def update(
        updates: Any, state: optax.EmptyState, params: Any = None, *, learning_rate: jax.Array, **_: Any
    ) -> tuple[Any, optax.EmptyState]:
        del params
        return jax.tree.map(lambda g: -learning_rate * g, updates), state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
