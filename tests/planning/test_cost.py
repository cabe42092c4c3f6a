"""Seconds and choices, against figures that were worked out by hand."""

import dataclasses

import pytest

from alexnet_jax.config.fields import Config
from alexnet_jax.planning.arithmetic import memory, training_flops
from alexnet_jax.planning.chips import CHIPS
from alexnet_jax.planning.cost import HOP, choose_mesh, floors, with_batch

H100 = CHIPS["h100"]


def with_mesh(config: Config, data: int, tower: int) -> Config:
    mesh = dataclasses.replace(config.mesh, data=data, tower=tower, cpu_devices=0)
    return dataclasses.replace(config, mesh=mesh)


def test_floors(paper: Config) -> None:
    """128 pictures on one H100: 67 TFLOP/s of float32, and nobody to talk to."""
    alone = floors(with_batch(paper, 128), 1, 1, 8, H100)
    assert alone.products == pytest.approx(128 * training_flops(paper.network) / 67e12)
    assert alone.exchange == alone.reduction == 0
    assert alone.bound == "products"
    assert alone.step == max(alone.products, alone.memory)


def test_all_reduce(paper: Config) -> None:
    for shape, each, reduction in (
        ((8, 1), 8, 2 * 7 / 8 * 243_860_896 / 450e9 + 6 * HOP),  # NVLink alone
        ((16, 1), 8, 2 * 15 / 16 * 243_860_896 / (8 * 50e9) + 8 * HOP),  # eight ways out of a host
        ((8, 2), 8, 2 * 7 / 8 * 121_930_448 / (4 * 50e9) + 6 * HOP),  # two rings share them
        ((16, 1), 1, 2 * 15 / 16 * 243_860_896 / 50e9 + 8 * HOP),  # a host for each
    ):
        found = floors(with_batch(paper, 1024), *shape, each, H100).reduction
        assert found == pytest.approx(reduction), (shape, each)


def test_exchange(paper: Config) -> None:
    """Towers that do not share a host talk over the network."""
    for each, speed in ((8, 450e9), (2, 450e9), (1, 50e9), (3, 50e9)):
        found = floors(with_batch(paper, 128), 1, 2, each, H100).exchange
        assert found == pytest.approx(4 * 128 * (2 * 30_336 + 500) / speed), each


def test_a_slice_of_tpus_is_one_host(paper: Config) -> None:
    """Links, not the network, however many hosts."""
    v5e = CHIPS["v5e"]
    found = floors(with_batch(paper, 128), 16, 1, 4, v5e)
    assert found.reduction == pytest.approx(2 * 15 / 16 * 243_860_896 / 200e9 + 8 * HOP)


def test_one_reduction_ends_where_the_other_begins(paper: Config) -> None:
    """By bytes they are equal at 1,005 pictures a row, 989 with the scores: towers win below, rows above."""
    even = dataclasses.replace(H100, pair=1e9, ring=1e9, float32=1e30, bandwidth=1e30)
    for batch, wanted in ((980, (1, 2)), (1000, (2, 1))):
        assert choose_mesh(with_batch(paper, batch), 1, 2, even)[0] == wanted, batch


def test_meshes(paper: Config) -> None:
    for batch, hosts, each, asked, wanted in (
        (128, 1, 2, (0, 0), (1, 2)),
        (4096, 4, 8, (0, 0), (32, 1)),
        (128, 1, 1, (0, 0), (1, 1)),
        (129, 1, 3, (0, 0), (3, 1)),  # towers would leave one idle
        (128, 1, 8, (0, 1), (8, 1)),
        (128, 1, 8, (2, 0), (2, 2)),
        (128, 1, 8, (8, 0), (8, 1)),
        (5002, 1, 2, (0, 0), (2, 1)),
        (5001, 1, 2, (0, 0), (1, 2)),  # two rows would be faster, but do not divide the batch
    ):
        shape, reason = choose_mesh(with_mesh(with_batch(paper, batch), *asked), hosts, each, H100)
        assert shape == wanted, (batch, hosts, each, asked)
        assert reason


def test_memory_decides_before_speed(paper: Config) -> None:
    """Two towers are chosen if only they fit, however slow their link."""
    config = with_batch(paper, 2048)
    slow = dataclasses.replace(H100, pair=1e6)
    assert choose_mesh(config, 1, 2, slow)[0] == (2, 1)
    between = (memory(config, 2, 1) + memory(config, 1, 2)) / 2
    tight = dataclasses.replace(slow, memory=between)
    chosen = (1, 2) if memory(config, 1, 2) < memory(config, 2, 1) else (2, 1)
    assert choose_mesh(config, 1, 2, tight)[0] == chosen
