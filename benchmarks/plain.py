"""The same network as one would first write it in JAX: groups, reduce_window, pow, XLA's own gradients."""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import numpy as np
import optax
from jax import lax
from jax import numpy as jnp

WIDTHS = ((11, 3, 96, 1), (5, 48, 256, 2), (3, 256, 384, 1), (3, 192, 384, 2), (3, 192, 256, 2))
DENSE = ((9216, 4096), (4096, 4096), (4096, 1000))

Params = list[dict[str, jax.Array]]


def contender(
    batch: int, rate: float, options: Mapping[str, str | int] | None = None
) -> tuple[Callable[[], None], Callable[[], None]]:
    """A training step and a forward pass, each returning when it is done; `options` are the compiler's."""
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(0, 60, (batch, 224, 224, 3)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 1000, batch))
    key, params = jax.random.key(1), _params(rng)
    optimizer = optax.chain(optax.add_decayed_weights(0.0005), optax.sgd(rate, momentum=0.9))
    velocity = optimizer.init(params)

    @partial(jax.jit, compiler_options=options)
    def forward_pass(params: Params) -> jax.Array:
        return _scores(params, images, None)

    def step(params: Params, velocity: optax.OptState) -> tuple[Params, optax.OptState]:
        def loss(params: Params) -> jax.Array:
            scores = _scores(params, images, key)
            return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

        updates, velocity = optimizer.update(jax.grad(loss)(params), velocity, params)
        return optax.apply_updates(params, updates), velocity

    train_step = jax.jit(step, donate_argnums=(0, 1), compiler_options=options)

    def train() -> None:
        nonlocal params, velocity
        params, velocity = jax.block_until_ready(train_step(params, velocity))

    return train, lambda: jax.block_until_ready(forward_pass(params))


def _params(rng: np.random.Generator) -> Params:
    shapes = [(size, size, inputs, outputs) for size, inputs, outputs, _ in WIDTHS] + list(DENSE)
    biases = (0, 1, 0, 1, 1, 1, 1, 0)
    return [
        {
            "kernel": jnp.asarray(rng.normal(0, 0.01, shape), jnp.float32),
            "bias": jnp.full(shape[-1], bias, jnp.float32),
        }
        for shape, bias in zip(shapes, biases, strict=True)
    ]


def _scores(params: Params, x: jax.Array, key: jax.Array | None) -> jax.Array:
    for i, (size, _, _, groups) in enumerate(WIDTHS):
        stride, padding = (4, (0, 3)) if i == 0 else (1, (size // 2, size // 2))
        x = jax.nn.relu(_conv(x, params[i], stride, padding, groups))
        if i < 2:
            x = _normalise(x)
        if i in (0, 1, 4):
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")
    x = x.reshape(len(x), -1)
    for i in (5, 6):
        x = jax.nn.relu(_dense(x, params[i]))
        keep = 0.5 if key is None else jax.random.bernoulli(jax.random.fold_in(key, i), 0.5, x.shape)
        x = x * keep
    return _dense(x, params[7])


def _dense(x: jax.Array, layer: dict[str, jax.Array]) -> jax.Array:
    return jnp.dot(x, layer["kernel"], precision=lax.Precision.HIGHEST) + layer["bias"]


def _conv(
    x: jax.Array, layer: dict[str, jax.Array], stride: int, padding: tuple[int, int], groups: int
) -> jax.Array:
    layout = ("NHWC", "HWIO", "NHWC")
    y = lax.conv_general_dilated(
        x,
        layer["kernel"],
        (stride, stride),
        (padding, padding),
        dimension_numbers=layout,
        feature_group_count=groups,
        precision=lax.Precision.HIGHEST,
    )
    return y + layer["bias"]


def _normalise(a: jax.Array) -> jax.Array:
    """Over all maps, as a plain net has no towers."""
    sums = lax.reduce_window(a**2, 0.0, lax.add, (1, 1, 1, 5), (1, 1, 1, 1), "SAME")
    return a / (2 + 1e-4 * sums) ** 0.75
