"""The opening lines of a run."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import pytest

from alexnet_jax.config.building import build
from alexnet_jax.config.fields import Config
from alexnet_jax.data.batches import open_packed
from alexnet_jax.learning.state import abstract_state
from alexnet_jax.network.layers import Params
from alexnet_jax.reporting.overview import mesh_drawing, network_table, overview, rates, weights
from alexnet_jax.sharding.mesh import make_mesh
from configs import four_layers, imagenet
from tests.commands.running import narrow


def params(config: Config) -> Params:
    return abstract_state(config, make_mesh(2, 2)).params


def table(config: Config) -> list[list[str]]:
    """The cells of the network's lines, the first with the headings."""
    cells = network_table(config.network, params(config)).splitlines()[1:]
    return [[cell.strip() for cell in line.strip().split("  ") if cell.strip()] for line in cells]


def test_the_papers_network(paper: Config) -> None:
    """Sizes of section 3.5; 60,965,224 parameters, of which a device of a pair holds a half."""
    spec = "P('tower')"
    assert table(paper) == [
        ["layer", "output", "kernel", "parameters", "spec", "reads", "then"],
        [
            *("conv1", "55 x 55 x 96", "2 x 11 x 11 x 3 x 48", "34,944", spec, "pictures"),
            "relu, LRN, pool to 27 x 27",
        ],
        [
            *("conv2", "27 x 27 x 256", "2 x 5 x 5 x 48 x 128", "307,456", spec, "its tower"),
            "relu, LRN, pool to 13 x 13",
        ],
        ["conv3", "13 x 13 x 384", "2 x 3 x 3 x 256 x 192", "885,120", spec, "all towers", "relu"],
        ["conv4", "13 x 13 x 384", "2 x 3 x 3 x 192 x 192", "663,936", spec, "its tower", "relu"],
        [
            *("conv5", "13 x 13 x 256", "2 x 3 x 3 x 192 x 128", "442,624", spec, "its tower"),
            "relu, pool to 6 x 6",
        ],
        ["fc6", "4096", "2 x 9216 x 2048", "37,752,832", spec, "all towers", "relu, dropout 0.5"],
        ["fc7", "4096", "2 x 4096 x 2048", "16,781,312", spec, "all towers", "relu, dropout 0.5"],
        ["fc8", "1000", "2 x 4096 x 500", "4,097,000", spec, "all towers"],
    ]
    assert weights(params(paper)) == (
        "params 60,965,224 parameters; 30,482,612 on a device, 121,930,448 bytes, and as many of velocity"
    )


@pytest.mark.parametrize(
    ("names", "layer", "then"),
    [
        ("source", "conv1", "LRN, relu, pool to 27 x 27"),
        ("source", "conv2", "relu, LRN, LRN in maps, pool to 13 x 13"),
        ("batch_norm,tanh", "conv2", "tanh, pool to 13 x 13, batch norm"),
        ("no_dropout", "fc6", "relu"),
    ],
)
def test_what_follows_a_layer(names: str, layer: str, then: str) -> None:
    rows = {row[0]: row for row in table(build(imagenet.get_config(names).to_dict()))}
    assert rows[layer][-1] == then


def test_kernels_of_their_own_in_one_tower() -> None:
    config = build(four_layers.get_config("lrn").to_dict())
    state = abstract_state(config, make_mesh(2, 1))
    lines = network_table(config.network, state.params).splitlines()
    assert lines[0] == "net    1 tower; float32"
    assert "relu, pool to 12 x 12, LRN" in lines[2]
    assert "6 x 6 x 32" in lines[4] and "1 x 6 x 6 x 3 x 3 x 64 x 32" in lines[4]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("paper", "0.01, divided by 10 after 3 validations without a better one, 3 times at most"),
        (
            "dexp",
            "0.01, divided by 250 in all, in 4 equal levels; biases at 2 times that, with dexp of their own",
        ),
        (
            "source",
            "0.01, divided by 10 at epochs 25, 51, 79; biases at 2 times that, with drops of their own; "
            "conv1 1e-05 from epoch 67, conv1 0 from epoch 72",
        ),
    ],
)
def test_rates(names: str, words: str) -> None:
    assert rates(build(imagenet.get_config(names).to_dict()).schedule) == words


def test_other_rates(paper: Config) -> None:
    poly = dataclasses.replace(paper.schedule, kind="polynomial", power=2.0, warmup_epochs=5.0)
    assert rates(poly) == "0.01, times (1 - what is gone of the run) ^ 2, after 5 epochs of ascent"
    constant = dataclasses.replace(paper.schedule, kind="drops")
    assert rates(constant) == "0.01, throughout"


def test_many_rows_of_devices() -> None:
    """Rows of devices, up to more than a screen has lines."""
    devices = jax.devices()
    drawn = mesh_drawing(make_mesh(8, 1), 2, 64).splitlines()
    assert drawn[0] == "mesh   8 x 1 (data x tower), cpu"
    assert drawn[1] == f"       rows 0-7         [cpu:{devices[0].id} towers 0-1]"
    assert drawn[8] == f"       rows 56-63       [cpu:{devices[7].id} towers 0-1]"
    assert len(drawn) == 9 and "..." not in "".join(drawn)

    class Pod:
        """All that is asked of a mesh, with more devices than there are."""

        shape = {"data": 16, "tower": 1}  # noqa: RUF012
        devices = make_mesh(8, 1).devices.repeat(2, axis=0)

    long = mesh_drawing(Pod(), 2, 64).splitlines()
    assert [line.split("[")[0].strip() for line in long[1:]] == [
        *("rows 0-3", "rows 4-7", "rows 8-11", "rows 12-15", "..."),
        *("rows 52-55", "rows 56-59", "rows 60-63"),
    ]


@pytest.mark.parametrize(
    ("first", "more", "words"),
    [
        (0, {}, "run    500 steps, batch 16, 2 epochs of 250 steps, jax "),
        (
            90,
            {"blocks": 4},
            "run    resuming at step 90 of 500, batch 16 in 4 blocks, 2 epochs of 250 steps, jax ",
        ),
    ],
)
def test_the_whole(
    first: int, more: dict[str, Any], words: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines begin with their names; a folder below this one has a short name."""
    from configs import quickstart

    config = narrow(quickstart.get_config(), data_dir, 500, train=more)
    monkeypatch.chdir(data_dir)
    packed, state = open_packed(config.data, 10), abstract_state(config, make_mesh(1, 2))
    given = (config, make_mesh(1, 2), state.params, packed, first, 500, Path.cwd() / "runs" / "a")
    lines = overview(*given).splitlines()
    assert len(lines) < 24  # a screen
    assert lines[0].startswith(
        "data   toyshapes, 10 classes, 4000 train, 1000 validation pictures, 72 x 72, cr"
    )
    assert any(line.startswith(words) for line in lines)
    assert lines[-2:] == [
        "files  runs/a: metrics.jsonl, checkpoints/ at least every 500 steps: the newest 3, and the best",
        "       tensorboard --logdir=runs/a",
    ]
