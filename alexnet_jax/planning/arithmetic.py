"""The cost of a training step by the shapes of its layers alone: FLOPs, bytes moved, bytes sent."""

from collections.abc import Iterator
from dataclasses import dataclass

import jax.numpy as jnp

from alexnet_jax.config.fields import NORMS, Config, ConvConfig, NetworkConfig
from alexnet_jax.network.precision import PRECISIONS
from alexnet_jax.network.shapes import SCORES, layer_sizes, pooled_size
from alexnet_jax.sharding.mesh import DATA, TOWER

FLOAT32 = 4  # bytes of a weight, its velocity, its gradient


@dataclass(frozen=True)
class LayerShape:
    """A layer of one tower; everything but the weights is counted for one picture."""

    name: str
    own_inputs: int  # numbers of each tower before the layer
    inputs: int  # numbers that a tower reads: of all towers after a crossing
    outputs: int
    normalised: int  # how often they are normalised
    joint: int  # numbers that towers exchange to normalise over the maps of all
    pooled: int  # numbers after the pool
    weights: int  # and biases
    products: int


def layer_shapes(network: NetworkConfig) -> list[LayerShape]:
    """Every layer that has weights, in order."""
    sizes, shapes = layer_sizes(network), []
    maps, side = 3, network.image_size
    for name, conv in network.convs().items():
        inputs, outputs = _inputs(network, name, maps), conv.width // network.towers
        places, taps = sizes[name] ** 2, conv.size**2 * inputs
        passed = pooled_size(network, conv, sizes[name])
        shapes.append(
            LayerShape(
                name,
                own_inputs=side**2 * maps,
                inputs=side**2 * inputs,
                outputs=places * outputs,
                normalised=sum(operation in NORMS for operation in conv.then),
                joint=_joint(network, conv, places * outputs, passed**2 * outputs),
                pooled=passed**2 * outputs,
                weights=(taps + 1) * outputs * (places if name in network.unshared else 1),
                products=places * taps * outputs,
            )
        )
        maps, side = outputs, passed
    units = side**2 * maps
    widths = {name: layer.width // network.towers for name, layer in network.hidden().items()}
    for name, width in {**widths, "fc8": -(-network.classes // network.towers)}.items():
        inputs = _inputs(network, name, units)
        weights = (inputs + 1) * width
        shapes.append(LayerShape(name, units, inputs, width, 0, 0, width, weights, inputs * width))
        units = width
    return shapes


def parameters(network: NetworkConfig) -> int:
    """Weights and biases of all towers: 60,965,224 in the paper's net."""
    return network.towers * sum(shape.weights for shape in layer_shapes(network))


def training_flops(network: NetworkConfig) -> int:
    """FLOPs of a picture, forward and backward, without its own gradient: 4.136e9 in the paper's net."""
    first, *others = (2 * shape.products for shape in layer_shapes(network))
    return network.towers * (2 * first + 3 * sum(others))


@dataclass(frozen=True)
class Pass:
    """A pass over data in a device's memory, in a step."""

    layer: str
    flops: float
    bytes: float


def passes(config: Config, data: int, tower: int) -> Iterator[Pass]:
    """The passes of a step, each of which reads its inputs and writes its outputs once."""
    network, pictures = config.network, config.train.batch_size / data
    here, size = network.towers // tower, activation_bytes(network)
    crop = network.image_size**2 * 3
    # Crops are cut from bytes, and a tower's device needs every row.
    yield Pass("input", 0, pictures * crop * (1 + size))
    for i, shape in enumerate(layer_shapes(network)):
        flops = 2 * here * pictures * shape.products
        maps = here * pictures * size
        moved = maps * (shape.inputs + shape.outputs) + here * shape.weights * size
        for _ in range(3 if i else 2):  # outputs, gradients of weights and, after the first, of inputs
            yield Pass(shape.name, flops, moved)
        for _ in range(shape.normalised):  # forward a number in, one out; backward two in, one out
            yield Pass(shape.name, 0, maps * 5 * shape.outputs)
        if shape.pooled != shape.outputs:  # of max pools a byte tells where in its window a maximum stood
            chosen = here * pictures * shape.pooled * 2
            yield Pass(shape.name, 0, maps * 2 * (shape.outputs + shape.pooled) + chosen)
        # Weights and velocity are read and written, gradients read.
        yield Pass(shape.name, 0, here * shape.weights * FLOAT32 * 5)


def exchanged(config: Config, data: int, tower: int) -> dict[tuple[str, str], int]:
    """Bytes that a device sends to each of the others in a step, by (axis, layer).

    Over `tower` its own maps, forward, and as many gradients of its neighbours' backward; over `data` the
    gradients of its weights, summed with those of other rows: all at once, or, with blocks, a part for each
    row and then the sum of its own part.
    """
    network, blocks, found = config.network, config.train.blocks, {}
    here, size = network.towers // tower, activation_bytes(network)
    shapes, rows = layer_shapes(network), config.train.batch_size // data
    if tower > 1:
        for shape in shapes:
            if shape.name in network.crossings:
                ways = 1 if shape is shapes[0] else 2  # no gradient of pictures
                found[TOWER, shape.name] = ways * here * rows * shape.own_inputs * size
            if shape.joint:
                found[TOWER, shape.name] = (
                    found.get((TOWER, shape.name), 0) + 2 * here * rows * shape.joint * size
                )
        # Scores are float32, and of their gradient each tower has its own part.
        found[TOWER, SCORES] = here * rows * shapes[-1].outputs * FLOAT32
    if data > 1:
        for shape in shapes:
            weights = here * shape.weights
            found[DATA, shape.name] = ((data + 1) * -(-weights // data) if blocks else weights) * FLOAT32
            conv = network.convs().get(shape.name)
            if conv and "batch_norm" in conv.then:
                # Mean and variance forward; backward the mean twice, as it is read for both its uses.
                maps = conv.width // network.towers
                found[DATA, shape.name] += 5 * here * maps * FLOAT32
    return found


# Numbers stored for the backward pass, for each number read or made: fitted to compiled programs.
STORED = 1.4


def memory(config: Config, data: int, tower: int) -> float:
    """Bytes on a device, roughly: weights and velocity, pictures, and what a step needs besides."""
    pictures, weights = config.train.batch_size / data, parameters(config.network) // tower
    return 2 * FLOAT32 * weights + pictures * config.data.size**2 * 3 + temporary(config, data, tower)


def temporary(config: Config, data: int, tower: int) -> float:
    """Bytes that a step needs only while it runs, roughly: gradients, and what the backward pass reads."""
    network, pictures = config.network, config.train.batch_size / data
    here, size = network.towers // tower, activation_bytes(network)
    numbers = sum(shape.inputs + shape.outputs for shape in layer_shapes(network))
    return FLOAT32 * parameters(network) / tower + pictures * STORED * size * here * numbers


def _inputs(network: NetworkConfig, name: str, units: int) -> int:
    return units * network.towers if name in network.crossings else units


def _joint(network: NetworkConfig, conv: ConvConfig, before: int, after: int) -> int:
    """Numbers that LRN over all towers reads, before or after the pool; 0 where there is none."""
    if network.lrn.over == "tower" or "lrn" not in conv.then:
        return 0
    pooled = conv.pool and conv.then.index(conv.pool) < conv.then.index("lrn")
    return after if pooled else before


def activation_bytes(network: NetworkConfig) -> int:
    """Bytes of a number between layers."""
    return jnp.dtype(PRECISIONS[network.precision].activations).itemsize
