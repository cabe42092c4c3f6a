"""Networks to compare: with other weights, and called on a mesh."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import numpy as np
from flax import nnx

from alexnet_jax.config.fields import NetworkConfig
from alexnet_jax.network.variants import Network, make_network
from alexnet_jax.sharding.mesh import PARAMETERS, REPLICATED, make_mesh
from alexnet_jax.sharding.platform import Form
from alexnet_jax.sharding.spread import spread


def redrawn(
    network: NetworkConfig,
    deviations: Mapping[str, float],
    others: float,
    biases: Mapping[str, float] | None = None,
) -> NetworkConfig:
    """Weights large enough for every layer to matter: deviations by name, one for the others; and biases."""
    layers = {
        name: dataclasses.replace(
            layer, deviation=deviations.get(name, others), bias=(biases or {}).get(name, layer.bias)
        )
        for name, layer in network.layers().items()
    }
    return dataclasses.replace(network, **layers)


def following(network: NetworkConfig, **then: tuple[str, ...]) -> NetworkConfig:
    """A network with other operations after some convolutions."""
    convs = {name: dataclasses.replace(network.convs()[name], then=own) for name, own in then.items()}
    return dataclasses.replace(network, **convs)


def parts(
    config: NetworkConfig, make: Callable[..., Network] = make_network, form: Form = "cpu"
) -> tuple[nnx.GraphDef, dict]:
    """The network's graph, and weights drawn in NumPy, for which nothing is compiled."""
    model = nnx.eval_shape(lambda: make(config, 1, form))
    graph, shapes, _ = nnx.split(model, nnx.Param, nnx.BatchStat)
    params, rng = nnx.to_pure_dict(shapes), np.random.default_rng(1)
    for name, layer in config.layers().items():
        kernel = rng.normal(0, layer.deviation, params[name]["kernel"].shape).astype(np.float32)
        params[name] = {"kernel": kernel, "bias": np.full(params[name]["bias"].shape, layer.bias, np.float32)}
    return graph, params


def averages(config: NetworkConfig) -> dict:
    """Running averages of batch normalisation, as if something had been learnt."""
    rng, found = np.random.default_rng(2), {}
    for name, conv in config.convs().items():
        if "batch_norm" not in conv.then:
            continue
        shape = (config.towers, conv.width // config.towers)
        drawn = {"mean": rng.normal(0, 1, shape), "variance": rng.uniform(0.5, 2, shape)}
        found[name.replace("conv", "norm")] = {key: np.float32(value) for key, value in drawn.items()}
    return found


def call(
    graph: nnx.GraphDef,
    params: dict,
    images: np.ndarray,
    shape: tuple[int, int],
    means: dict | None = None,
) -> jax.Array:
    """Class scores on a mesh; `means` are the averages of batch normalisation."""

    def body(params: dict, means: dict, images: jax.Array) -> jax.Array:
        return nnx.merge(graph, params, means)(images)

    scores = spread(body, make_mesh(*shape), (PARAMETERS, PARAMETERS, REPLICATED), REPLICATED)
    return jax.jit(scores)(params, means or {}, images)
