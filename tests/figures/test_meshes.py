"""The mesh: what is said to lie on a device lies on it."""

import dataclasses
import itertools
from pathlib import Path

import jax
import numpy as np
import pytest
from matplotlib.axes import Axes

from alexnet_jax.config.fields import Config
from alexnet_jax.errors import ConfigError
from alexnet_jax.figures.meshes import holdings, mesh
from alexnet_jax.sharding.rows import batch_rows, place_rows
from tests.figures.untrained import untrained


def with_towers(config: Config, towers: int) -> Config:
    return dataclasses.replace(config, network=dataclasses.replace(config.network, towers=towers))


@pytest.mark.parametrize(("towers", "data", "tower"), [(2, 1, 1), (2, 1, 2), (2, 4, 2), (1, 4, 1), (4, 2, 2)])
def test_what_devices_hold(towers: int, data: int, tower: int, narrow: Config, tmp_path: Path) -> None:
    """Looked up in the arrays themselves: the shards of the parameters, and of a batch that counts up."""
    opened = untrained(with_towers(narrow, towers), tmp_path, data, tower)
    found = {holding.device: holding for holding in holdings(opened)}
    assert len(found) == data * tower
    assert {(h.row, h.column) for h in found.values()} == set(itertools.product(range(data), range(tower)))
    size = opened.config.train.batch_size
    rows = batch_rows(opened.mesh, size)
    batch = place_rows(opened.mesh, rows, rows, size)
    conv1 = opened.state.params["conv1"]["kernel"]
    for pictures, kernels in zip(batch.addressable_shards, conv1.addressable_shards, strict=True):
        assert pictures.device == kernels.device
        own = found[f"cpu:{pictures.device.id}"]
        assert list(own.pictures) == np.asarray(pictures.data).tolist()
        assert len(own.towers) == len(kernels.data) == towers // tower
        np.testing.assert_array_equal(np.asarray(conv1)[own.towers], kernels.data)
        assert opened.mesh.devices[own.row, own.column] == pictures.device
    whole = sum(leaf.size for leaf in jax.tree.leaves(opened.state.params))
    assert {own.parameters for own in found.values()} == {whole // tower}


def boxes(axes: Axes) -> dict[tuple[float, float], list[str]]:
    """The words of each box, by where its corner is."""
    found = {}
    for patch in axes.patches:
        box = patch.get_bbox()
        inside = [t.get_text() for t in axes.texts if box.contains(*t.get_position())]
        found[round(box.x0, 3), round(box.y0, 3)] = [line for text in inside for line in text.split("\n")]
    return found


def talk(axes: Axes) -> dict[str, int]:
    """The number of lines along the rows and along the columns."""
    behind = [line.get_xydata() for line in axes.lines if line.get_zorder() == 0]
    return {
        "tower": sum(bool(line[0, 1] == line[1, 1]) for line in behind),
        "data": sum(bool(line[0, 0] == line[1, 0]) for line in behind),
    }


@pytest.mark.parametrize(("data", "tower"), [(1, 1), (1, 2), (4, 2)])
def test_what_is_drawn(data: int, tower: int, narrow: Config, tmp_path: Path) -> None:
    """Boxes in the order of the mesh, row below row; lines through those that talk to each other."""
    opened = untrained(narrow, tmp_path, data, tower)
    figure = mesh(opened)
    [axes] = figure.axes
    drawn = boxes(axes)
    lefts, bottoms = (sorted({corner[i] for corner in drawn}) for i in range(2))
    assert (len(bottoms), len(lefts)) == (data, tower)
    for row, column in itertools.product(range(data), range(tower)):
        device = opened.mesh.devices[row, column].id
        first = 8 // data * row
        assert drawn[lefts[column], bottoms[-1 - row]] == [
            f"cpu:{device}",
            f"tower {column}" if tower == 2 else "towers 0-1",
            f"pictures {first}-{first + 8 // data - 1}",
            f"{sum(leaf.size for leaf in jax.tree.leaves(opened.state.params)) // tower:,} parameters",
        ]
    assert talk(axes) == {"tower": data if tower > 1 else 0, "data": tower if data > 1 else 0}
    texts = [text.get_text() for text in axes.texts]
    crossings = "along tower: crossings, at conv3, fc6, fc7, fc8, scores"
    assert (crossings in texts, "along data: the sum of the gradients" in texts) == (tower > 1, data > 1)
    assert figure.get_suptitle().startswith(f"{data} x {tower} devices (data x tower)")


def test_four_towers_fit(narrow: Config, tmp_path: Path) -> None:
    """All words are inside their boxes."""
    figure = mesh(untrained(with_towers(narrow, 4), tmp_path, 2, 4))
    figure.draw_without_rendering()
    [axes] = figure.axes
    frames = [patch.get_window_extent() for patch in axes.patches]
    for words in (text.get_window_extent() for text in axes.texts if text.get_ha() == "center"):
        assert sum(
            f.x0 < words.x0 and words.x1 < f.x1 and f.y0 < words.y0 and words.y1 < f.y1 for f in frames
        )


def test_of_many_rows_some_are_drawn(narrow: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ones and the last."""
    monkeypatch.setattr("alexnet_jax.figures.meshes.MOST_ROWS", 4)
    [axes] = mesh(untrained(narrow, tmp_path, 8, 1)).axes
    names = [words[0] for _, words in sorted(boxes(axes).items(), key=lambda item: -item[0][1])]
    assert names == ["cpu:0", "cpu:1", "cpu:7"]
    assert "5 rows more" in [text.get_text() for text in axes.texts]


def test_a_batch_that_does_not_divide(narrow: Config, tmp_path: Path) -> None:
    opened = untrained(narrow, tmp_path, 3, 2)
    with pytest.raises(ConfigError, match=r"train\.batch_size=8 does not divide over the mesh's 3 data rows"):
        mesh(opened)
