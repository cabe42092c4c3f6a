"""Meshes of eight simulated devices, and which rows live where."""

import dataclasses

import jax
import numpy as np
import pytest

from alexnet_jax.config.building import build
from alexnet_jax.config.fields import Config
from alexnet_jax.errors import ConfigError
from alexnet_jax.sharding.mesh import make_mesh, open_mesh, towers_together
from alexnet_jax.sharding.platform import compiler_options
from alexnet_jax.sharding.rows import batch_rows, check_batch, place_rows
from configs import quickstart, variants


def with_mesh(config: Config, **fields: int) -> Config:
    mesh = {"data": 0, "tower": 0, "cpu_devices": 0} | fields
    return dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, **mesh))


def test_shapes(narrow: Config) -> None:
    for fields, shape in (
        ({}, (4, 2)),
        ({"tower": 1}, (8, 1)),
        ({"data": 2}, (2, 2)),
        ({"data": 1, "tower": 1}, (1, 1)),
        ({"data": 8}, (8, 1)),
        ({"data": 4}, (4, 2)),
        ({"data": 5}, (5, 1)),
        ({"data": 3}, (3, 2)),
    ):
        mesh = open_mesh(with_mesh(narrow, **fields).mesh, 2)
        assert mesh.axis_names == ("data", "tower")
        assert mesh.devices.shape == shape, fields


def test_the_quickstart_takes_every_variant() -> None:
    """Variants of one tower, two or four."""
    for name in variants.VARIANTS:
        config = build(quickstart.get_config(name).to_dict() | {"init_from": ""})
        towers = config.network.towers
        mesh = open_mesh(dataclasses.replace(config.mesh, cpu_devices=0), towers)
        assert mesh.devices.shape == (8 // towers, towers), name


def test_towers_of_a_row_share_a_host() -> None:
    """Three devices a host: two of each make a pair, and what is left over makes the third."""

    @dataclasses.dataclass(frozen=True)
    class Device:
        process_index: int
        id: int

    devices = [Device(number // 3, number) for number in range(6)]
    for given in (devices, devices[::-1]):
        assert [device.id for device in towers_together(given, 2)] == [0, 1, 3, 4, 2, 5]
        assert [device.id for device in towers_together(given, 1)] == [0, 1, 2, 3, 4, 5]


def test_refusals(narrow: Config) -> None:
    for fields, message in (
        ({"tower": 3}, "mesh.tower=3 does not divide network.towers=2; choose 1 or 2"),
        ({"data": 5, "tower": 2}, "needs 10 devices, there are 8 .*cpu_devices=10"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_mesh(with_mesh(narrow, **fields).mesh, 2)


def test_a_batch_that_does_not_divide() -> None:
    for size, choices in ((10, "8 or 12"), (3, "4 or 8")):
        message = f"train.batch_size={size} does not divide over the mesh's 4 data rows; choose {choices}"
        with pytest.raises(ConfigError, match=message):
            check_batch(4, "train.batch_size", size)


def test_rows_land_on_their_devices() -> None:
    """Each row of the mesh's devices holds its slice of the batch, both towers the same."""
    for shape in ((1, 1), (1, 2), (2, 2), (8, 1)):
        mesh, batch = make_mesh(*shape), np.arange(16).reshape(16, 1)
        rows = batch_rows(mesh, 16)
        placed = place_rows(mesh, rows, batch[rows], 16)
        np.testing.assert_array_equal(jax.device_get(placed), batch)
        each = 16 // shape[0]
        for piece in placed.addressable_shards:
            line = np.argwhere(mesh.devices == piece.device)[0][0]
            np.testing.assert_array_equal(piece.data, batch[line * each : (line + 1) * each], str(shape))


def test_compiler_options() -> None:
    """The CPU option is one that this jaxlib compiles with; elsewhere there is none."""
    options = compiler_options("cpu")
    assert list(options) == ["xla_cpu_experimental_ynn_fusion_type"]
    assert jax.jit(lambda x: x + 1, compiler_options=options)(1) == 2
    assert compiler_options("gpu") == {}
