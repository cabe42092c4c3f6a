"""Networks to compare: the same layers with other weights."""

import dataclasses
from collections.abc import Mapping

from alexnet_jax.config import NetworkConfig


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
