"""Networks to compare: with other weights, and called on a mesh."""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec

from alexnet_jax.config import NetworkConfig
from alexnet_jax.mesh import PARAMETERS, make_mesh
from alexnet_jax.network.alexnet import AlexNet


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


def parts(config: NetworkConfig, kind: type[AlexNet] = AlexNet) -> tuple[nnx.GraphDef, dict]:
    """The network's graph, and weights drawn in NumPy, for which nothing is compiled."""
    graph, shapes = nnx.split(nnx.eval_shape(lambda: kind(config, nnx.Rngs(params=1))), nnx.Param)
    params, rng = nnx.to_pure_dict(shapes), np.random.default_rng(1)
    for name, layer in config.layers().items():
        kernel = rng.normal(0, layer.deviation, params[name]["kernel"].shape).astype(np.float32)
        params[name] = {"kernel": kernel, "bias": np.full(params[name]["bias"].shape, layer.bias, np.float32)}
    return graph, params


def call(graph: nnx.GraphDef, params: dict, images: np.ndarray, shape: tuple[int, int]) -> jax.Array:
    """Class scores on a mesh."""

    def body(params: dict, images: jax.Array) -> jax.Array:
        return jax.lax.pmax(nnx.merge(graph, params)(images), "tower")

    specs = {"in_specs": (PARAMETERS, PartitionSpec()), "out_specs": PartitionSpec()}
    return jax.jit(jax.shard_map(body, mesh=make_mesh(*shape), **specs))(params, images)
