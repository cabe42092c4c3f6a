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
    model = nnx.eval_shape(lambda: kind(config, nnx.Rngs(params=1)))
    graph, shapes, _ = nnx.split(model, nnx.Param, nnx.BatchStat)
    params, rng = nnx.to_pure_dict(shapes), np.random.default_rng(1)
    for name, layer in config.layers().items():
        kernel = rng.normal(0, layer.deviation, params[name]["kernel"].shape).astype(np.float32)
        params[name] = {"kernel": kernel, "bias": np.full(params[name]["bias"].shape, layer.bias, np.float32)}
    return graph, params


def averages(config: NetworkConfig) -> dict:
    """Running averages of batch normalisation, as if something had been learnt."""
    rng, found = np.random.default_rng(2), {}
    for name in config.batch_norm.after:
        shape = (config.towers, config.convs()[name].width // config.towers)
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
        return jax.lax.pmax(nnx.merge(graph, params, means)(images), "tower")

    specs = {"in_specs": (PARAMETERS, PARAMETERS, PartitionSpec()), "out_specs": PartitionSpec()}
    return jax.jit(jax.shard_map(body, mesh=make_mesh(*shape), **specs))(params, means or {}, images)
