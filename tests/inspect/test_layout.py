"""Drawings say what the sharding says, for any number of axes."""

import re

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from alexnet_jax.errors import ConfigError
from alexnet_jax.inspect.layout import device_words, parts, show_sharding
from alexnet_jax.sharding.mesh import DATA, TOWER, make_mesh, shard


def shaped(shape: tuple[int, ...], mesh: Mesh, *spec: str | tuple[str, ...] | None) -> jax.ShapeDtypeStruct:
    """An array that is not there."""
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*spec)))


def cube() -> Mesh:
    return Mesh(np.array(jax.devices()).reshape(2, 2, 2), ("a", "b", "c"))


def test_a_kernel(capsys: pytest.CaptureFixture) -> None:
    """Printed and returned; four devices hold each tower."""
    drawn = show_sharding(shaped((2, 11, 11, 3, 48), make_mesh(4, 2), TOWER))
    assert capsys.readouterr().out == drawn + "\n"
    assert drawn.splitlines() == [
        "float32 (2, 11, 11, 3, 48)  P('tower')  69,696 of 139,392 bytes on each device",
        "  axis 0 +-------------+",
        "       0 | cpu:0 2 4 6 |",
        "         +-------------+",
        "       1 | cpu:1 3 5 7 |",
        "         +-------------+",
    ]


def test_two_axes_that_are_cut() -> None:
    """Shows their indices, and leaves out the axis between them."""
    assert show_sharding(shaped((8, 5, 6), make_mesh(2, 2), DATA, None, TOWER)).splitlines()[1:] == [
        "           axis 2",
        "           0-2     3-5",
        "  axis 0 +-------+-------+",
        "     0-3 | cpu:0 | cpu:1 |",
        "         +-------+-------+",
        "     4-7 | cpu:2 | cpu:3 |",
        "         +-------+-------+",
    ]


def test_everywhere() -> None:
    for x in (shaped((3, 4), make_mesh(4, 2)), jax.device_put(jnp.ones(()), shard(cube(), PartitionSpec()))):
        assert show_sharding(x).splitlines()[2].strip() == "| cpu:0-7 |"
    assert "SingleDeviceSharding" in show_sharding(jnp.ones(3))


def test_against_the_shards() -> None:
    """Every number lies where the drawing has it: read from the drawing, and from the devices themselves."""
    for shape, spec in (
        ((4, 6), ("a",)),
        ((2, 4, 4, 8), ("b", None, None, ("a", "c"))),
        ((8, 4, 6), ("c", "a", "b")),
        ((2, 3, 4, 2, 6), ("a", None, "b", "c")),
        ((2, 3, 3, 3, 3, 16, 8), (None, None, None, None, None, "b", "a")),
    ):
        numbers = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        place = NamedSharding(cube(), PartitionSpec(*spec))
        placed = jax.device_put(numbers, place)
        drawn = show_sharding(placed)
        assert drawn == show_sharding(jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place)), spec
        found = {}
        for spans, devices in read(drawn, shape):
            for device in devices:
                found[device] = numbers[tuple(slice(*span) for span in spans)]
        assert sorted(found) == list(range(8)), spec
        for piece in placed.addressable_shards:
            np.testing.assert_array_equal(found[piece.device.id], np.asarray(piece.data), str(spec))


def read(drawn: str, shape: tuple[int, ...]) -> list[tuple[list[tuple[int, int]], list[int]]]:
    """Each cell of a drawing: its span along every axis, and its devices."""

    def span(words: str) -> tuple[int, int]:
        first, _, last = words.partition("-")
        return int(first), int(last or first) + 1

    cells, fixed, across, columns, down = [], {}, None, [None], None
    for line in drawn.splitlines()[1:]:
        if line.startswith("axis"):
            fixed = {int(axis): span(words) for axis, words in re.findall(r"axis (\d+): ([\d-]+)", line)}
        elif found := re.fullmatch(r" +axis (\d+)", line):
            across = int(found[1])
        elif re.fullmatch(r" +[\d-]+( +[\d-]+)+", line):
            columns = [span(words) for words in line.split()]
        elif found := re.match(r" +axis (\d+) \+", line):
            down = int(found[1])
        elif "|" in line:
            label, *devices = line.rstrip(" |").split("|")
            for column, words in zip(columns, devices, strict=True):
                spans = {**fixed, down: span(label.strip()), across: column}
                whole = [spans.get(axis) or (0, n) for axis, n in enumerate(shape)]
                cells.append((whole, listed(words.strip().removeprefix("cpu:"))))
    return cells


def listed(words: str) -> list[int]:
    first, dash, last = words.partition("-")
    return list(range(int(first), int(last) + 1)) if dash else [int(word) for word in words.split()]


def test_few_words_for_many_devices() -> None:
    devices = jax.devices()
    assert [device_words([devices[i] for i in ids]) for ids in ([3], [4, 0], [0, 1, 2], [1, 2, 5])] == [
        "cpu:3",
        "cpu:0 4",
        "cpu:0-2",
        "cpu:1 2 5",
    ]
    many = [type("Device", (), {"id": i, "platform": "gpu"})() for i in range(0, 512, 2)]
    assert device_words(many) == "gpu:0 2 .. 510"


def test_of_a_batch() -> None:
    """Rows lie with both towers."""
    held = parts(shaped((8, 72, 72, 3), make_mesh(4, 2), DATA))
    assert [spans[0] for spans in held] == [(0, 2), (2, 4), (4, 6), (6, 8)]
    assert [[device.id for device in devices] for devices in held.values()] == [
        [0, 1],
        [2, 3],
        [4, 5],
        [6, 7],
    ]


def test_what_lies_nowhere() -> None:
    for x in (np.ones((3, 4)), jax.ShapeDtypeStruct((3, 4), jnp.float32)):
        with pytest.raises(ConfigError, match=r"shape \(3, 4\) lies: it has no sharding"):
            show_sharding(x)
