"""The table of chips, and topologies made of them."""

import dataclasses
import math

import pytest

from alexnet_jax.config.fields import Config
from alexnet_jax.errors import ConfigError, RefusedError
from alexnet_jax.planning import topology as topology_module
from alexnet_jax.planning.arithmetic import training_flops
from alexnet_jax.planning.chips import CHIPS
from alexnet_jax.planning.topology import GRIDS, Topology, devices_of, read_topology


def test_figures(paper: Config) -> None:
    """An H100's limit is performance.md's 239,000 pictures a second; a TPU's links share what it sends."""
    assert round(CHIPS["h100"].bfloat16 / training_flops(paper.network), -3) == 239_000
    assert CHIPS["v5e"].pair == 50e9
    assert CHIPS["v5p"].pair == 100e9
    assert all(chip.source and chip.name in chip.source.lower() for chip in CHIPS.values())


def test_topologies() -> None:
    for text, hosts, each in (
        ("h100:2x8", 2, 8),
        ("a100:1x2", 1, 2),
        ("v5e:4x8", 8, 4),
        ("v5e:1x1", 1, 1),
        ("v5p:2x2x2", 2, 4),
        ("cpu:2x2", 2, 2),
    ):
        found = read_topology(text)
        assert found == Topology(*text.split(":"), hosts, each)
        assert str(found) == text


def test_malformed_topologies() -> None:
    """The proposal is a topology that can be read."""
    for text, nearest in (
        ("h10:2x8", "the nearest name is h100, as in --topology=h100:1x2"),
        ("V5E:4x4", "the nearest name is v5e, as in --topology=v5e:2x2"),
        ("h100:3x16", "of 1 to 8 devices a host; the nearest is --topology=h100:6x8"),
        ("h100", "the nearest is --topology=h100:1x2"),
        ("h100:0x8", "the nearest is --topology=h100:1x2"),
        ("h100:2x8x2", "the nearest is --topology=h100:1x2"),
        ("v5e:3x5", "v5e has no slice '3x5' .*; the nearest is --topology=v5e:4x4"),
        ("v5p:4x4", "the nearest is --topology=v5p:2x2x4"),
        ("cpu:40x2", "80 devices, more than the 64 .*; choose --topology=cpu:32x2"),
    ):
        with pytest.raises(ConfigError, match=nearest) as refused:
            read_topology(text)
        assert "\n" not in str(refused.value)
        read_topology(str(refused.value).rpartition("--topology=")[2])


def test_every_slice_fits_its_hosts() -> None:
    for name, grids in GRIDS.items():
        for grid in grids:
            found = read_topology(f"{name}:{grid}")
            assert math.prod(int(n) for n in grid.split("x")) == found.devices <= CHIPS[name].joined


def test_a_compiler_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology_module.importlib.util, "find_spec", lambda _: None)
    for text, command in (("h100:1x2", 'pip install "jax[cuda12]"'), ("v5e:2x2", "pip install libtpu")):
        with pytest.raises(RefusedError) as refused:
            devices_of(read_topology(text))
        assert str(refused.value).endswith(command)


def test_a_chip_is_a_row() -> None:
    """Frozen: nobody changes the table."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        CHIPS["h100"].memory = 1
