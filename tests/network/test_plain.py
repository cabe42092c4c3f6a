"""JAX's transformations of the plain form: forward mode, Hessians and remat, by layer and of the whole."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from jax import numpy as jnp

from alexnet_jax.network.alexnet import AlexNet
from alexnet_jax.network.layers import Conv, Dense, LocalConv, dropout
from alexnet_jax.network.lrn import local_response_norm, map_norm
from alexnet_jax.network.pool import average_pool, max_pool
from alexnet_jax.network.precision import PRECISIONS
from alexnet_jax.sharding.platform import Form

pytestmark = pytest.mark.slow

FAST: tuple[Form, ...] = ("fast", "cpu")
TOLERANCE = {"rtol": 1e-9, "atol": 1e-12}


def randoms(tree: Any, seed: int = 0) -> Any:
    """Numbers of N(0, 1) in the shapes of a tree."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), tree)


def inner(one: Any, other: Any) -> jax.Array:
    return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, one, other)))


def check_transformations(loss: Callable[[Any], jax.Array], at: Any) -> Any:
    """Forward mode and Hessian-vector products agree with reverse mode, and remat changes nothing."""
    direction, gradient = randoms(at, 1), jax.grad(loss)(at)
    _, slope = jax.jvp(loss, (at,), (direction,))
    np.testing.assert_allclose(slope, inner(gradient, direction), **TOLERANCE)
    _, forward = jax.jvp(jax.grad(loss), (at,), (direction,))
    reverse = jax.grad(lambda at: inner(jax.grad(loss)(at), direction))(at)
    assert any(np.any(x) for x in jax.tree.leaves(forward))
    check_equal(forward, reverse)
    check_equal(jax.grad(jax.checkpoint(loss))(at), gradient)
    return gradient


def check_equal(found: Any, wanted: Any) -> None:
    jax.tree.map(partial(np.testing.assert_allclose, **TOLERANCE), found, wanted)


def squares(x: Any) -> jax.Array:
    """A loss whose second derivative is not 0, and whose gradient differs from place to place."""
    weights = np.linspace(1, 2, x.size).reshape(x.shape)
    return jnp.sum(weights * x**3)


OPERATIONS = {
    "lrn": lambda x, form: local_response_norm(x, 5, 2.0, 0.3, 0.75, form),
    "map_norm": lambda x, form: map_norm(x, 3, 1.0, 0.3, 0.75, form),
    "max_pool": lambda x, form: max_pool(x, 3, 2, "up", form),
    "average_pool": lambda x, _: average_pool(x, 3, 2),
    "dropout": lambda x, _: dropout([x[:, 0, 0]], 0.5, jax.random.split(jax.random.key(0), 2), 6, 1)[0],
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name: str) -> None:
    with jax.enable_x64(True):
        x = randoms(np.zeros((2, 7, 7, 6)))
        gradient = check_transformations(lambda x: squares(OPERATIONS[name](x, "plain")), x)
        for form in FAST:
            check_equal(jax.grad(lambda x, form=form: squares(OPERATIONS[name](x, form)))(x), gradient)


LAYERS = {
    "conv": lambda **layer: Conv(3, 3, 6, 5, stride=2, padding=(1, 2), **layer),
    "local": lambda **layer: LocalConv(4, 4, 3, 3, 6, 5, stride=2, padding=(1, 2), **layer),
    "dense": lambda **layer: Dense(7 * 7 * 6, 5, **layer),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_with_weights(name: str) -> None:
    """By their kernels, biases and inputs."""

    def loss(form: Form) -> tuple[Callable[[Any], jax.Array], Any]:
        options = {"towers": 2, "deviation": 0.1, "bias": 0.0, "precision": PRECISIONS["float64"]}
        layer = LAYERS[name](rngs=nnx.Rngs(params=0), form=form, **options)
        graph, shapes = nnx.split(layer)

        def value(at: tuple[Any, list[jax.Array]]) -> jax.Array:
            params, x = at
            return sum(squares(tower) for tower in nnx.merge(graph, params)(x))

        return value, (nnx.to_pure_dict(shapes), [np.zeros((2, 7, 7, 6))] * 2)

    with jax.enable_x64(True):
        value, shapes = loss("plain")
        at = randoms(shapes)
        gradient = check_transformations(value, at)
        for form in FAST:
            check_equal(jax.grad(loss(form)[0])(at), gradient)


@pytest.mark.parametrize("name", ["lrn", "map_norm", "max_pool"])
def test_forward_mode_of_the_fast_form(name: str) -> None:
    """JAX's own error, and beside it which form to take."""
    x = jnp.ones((1, 7, 7, 6))
    with pytest.raises(TypeError) as refused:
        jax.jvp(lambda x: OPERATIONS[name](x, "fast"), (x,), (x,))
    assert 'form="plain"' in refused.value.__notes__[0]


def narrow(form: Form) -> AlexNet:
    sizes = {"image_size": 64, "classes": 10, "widths": (4, 8, 8, 8, 4, 8, 8)}
    return AlexNet(0, **sizes, deviations=(0.3,) * 8, precision="float64", form=form)


def test_the_whole_net() -> None:
    """By all its parameters, with dropout."""
    images = np.random.default_rng(0).normal(0, 60, (2, 64, 64, 3))
    keys = jax.random.split(jax.random.key(1), 2)

    def loss(params: Any, form: Form = "plain") -> jax.Array:
        graph = nnx.split(nnx.eval_shape(lambda: narrow(form)))[0]
        scores = nnx.merge(graph, params)(jnp.asarray(images), keys)
        return -jnp.mean(jax.nn.log_softmax(scores)[:, 3])

    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: x.astype(jnp.float64), nnx.to_pure_dict(nnx.state(narrow("plain"))))
        gradient = check_transformations(jax.jit(loss), params)
        for form in FAST:
            check_equal(jax.jit(jax.grad(partial(loss, form=form)))(params), gradient)
