"""Every collective of the real step has its axis, its bytes and, as asked for, its layer; one more shows."""

import collections
import dataclasses
import functools

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from alexnet_jax.config.fields import CONVS, Config
from alexnet_jax.network import variants
from alexnet_jax.network.alexnet import AlexNet
from alexnet_jax.network.layers import Towers
from alexnet_jax.planning.arithmetic import exchanged
from alexnet_jax.planning.collectives import OTHER, Collective, read, requested, totals
from alexnet_jax.planning.compiling import Program, compile_step, lower_step, surprises
from alexnet_jax.sharding.mesh import make_mesh
from tests.learning.collectives import collectives
from tests.network.networks import following

LAYERS = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]


slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@functools.cache
def program(config: Config, shape: tuple[int, int]) -> Program:
    return compile_step(config, make_mesh(*shape))


@pytest.mark.usefixtures("half_optimised")
@pytest.mark.parametrize("shape", [*map(slow, [(1, 2), (2, 2), (4, 1)]), (4, 2)])
def test_the_compiled_step(narrow: Config, shape: tuple[int, int]) -> None:
    """Five crossings forward and four backward, and the gradients of eight layers, by arithmetic."""
    found = program(narrow, shape)
    assert surprises(narrow, shape, found) == {}
    data, tower = shape
    counts = collections.Counter((one.kind, one.axis) for one in found.done)
    assert counts["all-gather", "tower"] == (5 if tower > 1 else 0)
    assert counts["reduce-scatter", "tower"] == (4 if tower > 1 else 0)
    asked = [one.layer for one in found.asked if one.axis == "data" and one.layer != OTHER]
    assert sorted(set(asked)) == (LAYERS if data > 1 else [])
    assert totals(found.asked) != {} and {one.axis for one in found.done} <= {
        "data",
        "tower",
        "data and tower",
    }
    for kind in ("all-gather", "reduce-scatter", "all-reduce"):
        said, done = (
            sum(one.bytes for one in which if one.kind == kind) for which in (found.asked, found.done)
        )
        assert said == done, kind


@pytest.mark.usefixtures("half_optimised")
@pytest.mark.parametrize("shape", [slow((1, 2)), (4, 2)])
def test_another_reader_finds_as_many(narrow: Config, shape: tuple[int, int]) -> None:
    """The reader of tests/learning, which knows nothing of layers."""
    found = program(narrow, shape)
    kinds = sorted(one.kind for one in collectives(found.text) if max(map(len, one.groups)) > 1)
    assert kinds == sorted(one.kind for one in found.done)


@pytest.mark.parametrize(
    ("fields", "shape"),
    [
        slow({"towers": 4}, (2, 2)),
        ({"towers": 4}, (2, 4)),
        slow({"precision": "bfloat16"}, (2, 2)),
        slow({"classes": 11}, (1, 2)),
        slow({"crossings": ("fc8",)}, (1, 2)),
        slow({"conv2": ("activation", "batch_norm"), "conv5": ("max_pool", "batch_norm")}, (2, 2)),
        ({"lrn": "all", "conv2": ("max_pool", "lrn")}, (2, 2)),
        slow({"unshared": ("conv4",)}, (2, 2)),
    ],
)
def test_other_networks(narrow: Config, fields: dict, shape: tuple[int, int]) -> None:
    """The program asks for what the arithmetic says, whatever the network."""
    network = narrow.network
    if "conv2" in fields:
        network = following(network, **{name: then for name, then in fields.items() if name in CONVS})
        lrn = dataclasses.replace(network.lrn, over=fields.get("lrn", "tower"))
        fields = {"lrn": lrn}
    config = dataclasses.replace(narrow, network=dataclasses.replace(network, **fields))
    mesh = make_mesh(*shape)
    asked = totals(requested(lower_step(config, mesh), mesh))
    assert {key: n for key, n in asked.items() if key[1] != OTHER} == exchanged(config, *shape)


def test_an_added_crossing_is_seen(narrow: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: a network whose towers also talk after conv1 and conv2."""

    class Leaky(AlexNet):
        def lrn(self, x: Towers) -> Towers:
            return [tower[..., : x[0].shape[-1]] for tower in self.cross(super().lrn(x))]

    monkeypatch.setattr(variants, "AlexNet", Leaky)
    mesh = make_mesh(1, 2)
    asked = requested(lower_step(narrow, mesh), mesh)
    found = surprises(narrow, (1, 2), Program("", 0, 0, 0, 0, asked, asked))
    assert set(found) == {("tower", "conv1"), ("tower", "conv2")}
    assert all(more > 0 == wanted for more, wanted in found.values())


def mesh_of(data: int, tower: int) -> Mesh:
    """A mesh whose devices nobody looks at."""
    return Mesh(np.array(jax.devices()[: data * tower]).reshape(data, tower), ("data", "tower"))


def test_names_of_hardware_that_merges_and_pads() -> None:
    """Lines as a GPU's and a TPU's compiler print them: flattened, padded, started, of its own."""
    groups, named = "replica_groups={{0,1},{2,3}}", 'metadata={op_name="jit(step)/conv3/all_gather"}'
    pairs = "source_target_pairs={{0,1},{2,3}}"
    text = f"""
%all-reduce-scatter (input: f32[2,4,5]) -> f32[4,8] {{
  %all-reduce.1 = f32[8,8]{{1,0:T(8,128)}} all-reduce(%pad), {groups}, to_apply=%add
}}
ENTRY %main {{
  %s = (f32[1,4,6], f32[2,4,6]) all-gather-start(%x), {groups}, {named}
  %r = f32[15]{{0}} all-reduce-start(%c), replica_groups=[2,2]<=[2,2]T(1,0), to_apply=%add
  %p = (f32[1,8], f32[1,8], u32[], u32[]) collective-permute-start(%y), {pairs}
}}"""
    assert read(text, mesh_of(2, 2)) == [
        Collective("reduce-scatter", "tower", 2, 128, OTHER),
        Collective("all-gather", "tower", 2, 96, "conv3"),
        Collective("all-reduce", "data", 2, 60, OTHER),
        Collective("collective-permute", "tower", 2, 32, OTHER),
    ]
