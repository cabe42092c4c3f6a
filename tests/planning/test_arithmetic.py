"""A step by the shapes of its layers, against figures that were worked out by hand."""

import dataclasses
import math

import jax
import pytest

from alexnet_jax.config.building import build
from alexnet_jax.config.fields import Config
from alexnet_jax.learning.state import abstract_state
from alexnet_jax.planning.arithmetic import (
    exchanged,
    layer_shapes,
    parameters,
    passes,
    training_flops,
)
from alexnet_jax.planning.cost import with_batch
from alexnet_jax.sharding.mesh import make_mesh
from configs import quickstart, variants


def by_axis(config: Config, shape: tuple[int, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for (axis, _), size in exchanged(config, *shape).items():
        found[axis] = found.get(axis, 0) + size
    return found


def test_the_paper_by_hand(paper: Config) -> None:
    """Parameters and products of each layer of a tower, from the text of section 3.5."""
    shapes = {shape.name: shape for shape in layer_shapes(paper.network)}
    assert parameters(paper.network) == 60_965_224
    assert {name: shape.weights for name, shape in shapes.items()} == {
        "conv1": 48 * (11 * 11 * 3 + 1),
        "conv2": 128 * (5 * 5 * 48 + 1),
        "conv3": 192 * (3 * 3 * 256 + 1),
        "conv4": 192 * (3 * 3 * 192 + 1),
        "conv5": 128 * (3 * 3 * 192 + 1),
        "fc6": 2048 * (6 * 6 * 256 + 1),
        "fc7": 2048 * (4096 + 1),
        "fc8": 500 * (4096 + 1),
    }
    assert {name: shape.own_inputs for name, shape in shapes.items() if name in paper.network.crossings} == {
        "conv3": 21_632,
        "fc6": 4_608,
        "fc7": 2_048,
        "fc8": 2_048,
    }
    forward = 2 * sum(shape.products for shape in shapes.values())
    assert round(forward / 1e6) == 724
    assert shapes["conv1"].products == 55 * 55 * 11 * 11 * 3 * 48
    assert round(training_flops(paper.network) / 1e9, 3) == 4.136


def test_what_towers_and_rows_tell_each_other(paper: Config) -> None:
    """30,336 numbers a picture and tower, each way, scores one way; 243,860,896 bytes of gradients."""
    config = with_batch(paper, 128)
    assert by_axis(config, (1, 1)) == {}
    assert by_axis(config, (1, 2)) == {"tower": 4 * 128 * (2 * 30_336 + 500)}
    assert by_axis(config, (2, 1)) == {"data": 243_860_896}
    assert by_axis(config, (4, 2)) == {"tower": 4 * 32 * (2 * 30_336 + 500), "data": 121_930_448}
    half = dataclasses.replace(paper.network, precision="bfloat16")
    assert by_axis(dataclasses.replace(config, network=half), (2, 2)) == {
        "tower": 2 * 2 * 64 * 30_336 + 4 * 64 * 500,  # scores are float32
        "data": 121_930_448,  # weights and their gradients stay float32
    }


def test_memory_traffic(paper: Config) -> None:
    """performance.md: both normalisations of 1,024 pictures in bfloat16, 0.58 + 0.87 ms at 3.35 TB/s."""
    half = dataclasses.replace(paper, network=dataclasses.replace(paper.network, precision="bfloat16"))
    shapes = {shape.name: shape for shape in layer_shapes(half.network)}
    wanted = 1024 * 2 * 2 * 5 * (shapes["conv1"].outputs + shapes["conv2"].outputs)
    idle = [p.bytes for p in passes(with_batch(half, 1024), 1, 1) if not p.flops]
    found = [
        size for size in idle if size in {1024 * 2 * 2 * 5 * shapes[n].outputs for n in ("conv1", "conv2")}
    ]
    assert sum(found) == wanted
    assert wanted / 3.35e12 == pytest.approx(0.58e-3 + 0.87e-3, rel=0.01)


def test_every_variant_has_the_parameters_of_its_arithmetic() -> None:
    for name in variants.VARIANTS:
        config = build(quickstart.get_config(name).to_dict() | {"init_from": ""})
        params = abstract_state(config, make_mesh(1, 1)).params
        assert parameters(config.network) == sum(math.prod(x.shape) for x in jax.tree.leaves(params)), name


def test_flops_are_shared_by_devices(paper: Config) -> None:
    """Every device of any mesh does its part, and the parts make the whole."""
    config = with_batch(paper, 8)
    for data, tower in ((1, 1), (1, 2), (2, 1), (4, 2)):
        here = sum(p.flops for p in passes(config, data, tower))
        assert here * data * tower == pytest.approx(8 * training_flops(paper.network))
