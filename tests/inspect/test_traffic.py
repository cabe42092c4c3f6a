"""The step's collectives are those of the compiled program, and as many bytes as the arithmetic says."""

import collections
import dataclasses
import re
from pathlib import Path

import pytest

from alexnet_jax.errors import ConfigError
from alexnet_jax.inspect.traffic import by_layer, communication, compiled_step, counted
from alexnet_jax.planning.collectives import Collective
from alexnet_jax.planning.compiling import Program
from alexnet_jax.planning.page import communication_lines as lines
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.trained.opened import TrainedRun, load_run
from tests.learning.collectives import collectives

FIVE = ("conv3", "fc6", "fc7", "fc8", "scores")


@pytest.fixture(scope="module")
def run(trained: Path) -> TrainedRun:
    return load_run(Workdir(str(trained)), None, make_mesh(4, 2))


def test_five_crossings(run: TrainedRun) -> None:
    """Five there and four back, as all have the gradient of scores; so says the tests' own reader too."""
    found = counted(run)
    assert (found["all-gather", "tower"], found["reduce-scatter", "tower"]) == (5, 4)
    pairs = tuple((i, i + 1) for i in range(0, 8, 2))
    read = collections.Counter(
        one.kind for one in collectives(compiled_step(run).text) if one.groups == pairs
    )
    assert (read["all-gather"], read["reduce-scatter"]) == (5, 4)


def test_bytes_by_hand(run: TrainedRun) -> None:
    """Four pictures a row of devices, four bytes a number, there and back; of scores only there."""
    found = by_layer(run)
    given = {"conv3": 2 * 3 * 3 * 8, "fc6": 2 * 1 * 1 * 4, "fc7": 2 * 8, "fc8": 2 * 16, "scores": 5}
    for layer, numbers in given.items():
        assert found["tower", layer] == (4 * numbers * 4,) * 2
    assert found["data", "fc7"] == ((16 + 1) * 16 * 4,) * 2  # gradients of a tower's weights and biases
    assert {layer for axis, layer in found if axis == "tower"} == set(FIVE)
    assert all(asked == wanted for asked, wanted in found.values())


def test_as_a_table(run: TrainedRun) -> None:
    text = communication(run)
    for kind, count in (("all-gather", 5), ("reduce-scatter", 4)):
        times = re.findall(rf"^  {kind} +tower +2 +(\d+) x [\d,]+$", text, re.MULTILINE)
        assert sum(map(int, times)) == count
    assert text.endswith("which is what the arithmetic says, to the byte")


def test_alone(run: TrainedRun) -> None:
    text = list(lines(run.config, (1, 1), Program("", 0, 0, 0, 0, [], [])))
    assert text[1] == "  nothing"
    assert len(text) == 3  # there is nothing to be right about


def test_what_is_done_again_is_one_line(run: TrainedRun) -> None:
    """A batch in blocks crosses once for each."""
    crossing = Collective("all-gather", "tower", 2, 1024, "fc6")
    program = Program("", 0, 0, 0, 0, [], [crossing, crossing, dataclasses.replace(crossing, bytes=8)])
    text = "\n".join(lines(run.config, (1, 1), program))
    assert re.search(r"tower +2 +2 x 1,024\n +all-gather +tower +2 +1 x 8$", text, re.MULTILINE)


def test_a_mesh_that_its_batches_do_not_fit(run: TrainedRun) -> None:
    blocks = dataclasses.replace(run.config.train, blocks=4)
    other = dataclasses.replace(
        run, config=dataclasses.replace(run.config, train=blocks), mesh=make_mesh(8, 1)
    )
    with pytest.raises(
        ConfigError, match=r"4 blocks, .* over 8 data rows; choose a mesh of 1 or 2 or 4 rows$"
    ):
        compiled_step(other)
    batch = dataclasses.replace(run.config.train, batch_size=12)
    other = dataclasses.replace(other, config=dataclasses.replace(run.config, train=batch))
    with pytest.raises(ConfigError, match=r"12 pictures, .* choose a mesh of 3 or 4 or 6 rows$"):
        compiled_step(other)
