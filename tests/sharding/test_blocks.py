"""Every mesh computes the same bits with `train.blocks`, over any number of steps."""

import dataclasses
import functools
import hashlib

import jax
import numpy as np
import pytest

from alexnet_jax.config.building import build
from alexnet_jax.config.fields import Config
from alexnet_jax.errors import ConfigError
from alexnet_jax.learning.prediction import make_evaluation_step
from alexnet_jax.learning.state import init_state
from alexnet_jax.learning.step import no_totals
from alexnet_jax.planning.compiling import compile_step, surprises
from alexnet_jax.sharding.blocks import check_blocks, sum_over_rows, tree_sum
from alexnet_jax.sharding.mesh import DATA, REPLICATED, make_mesh
from alexnet_jax.sharding.mesh import ROWS as BY_ROWS
from alexnet_jax.sharding.spread import spread
from configs import quickstart
from tests.learning.steps import Trainer, random_batch, random_pixels

BLOCKS, STEPS = 4, 3
ROWS = np.random.default_rng(0).normal(size=(4, 7)).astype(np.float32)
TREE = (ROWS[0] + ROWS[1]) + (ROWS[2] + ROWS[3])


def in_blocks(config: Config, blocks: int) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, blocks=blocks))


@functools.cache
def end(config: Config, blocks: int, shape: tuple[int, int]) -> tuple[str, tuple]:
    """After a few steps and an evaluation: every bit of the state, and what was counted."""
    config, mesh = in_blocks(config, blocks), make_mesh(*shape)
    found = Trainer(config, mesh).run([0.01] * STEPS, jax.device_get(init_state(config, mesh)))
    state = found["states"][-1]
    bits = hashlib.sha256(b"".join(x.tobytes() for x in jax.tree.leaves(state))).hexdigest()
    step, batch = make_evaluation_step(config, mesh, 1), random_batch(config, mesh)
    seen = step(init_state(config, mesh), no_totals(mesh), random_pixels(config), batch).means()
    return bits, (*found["losses"], *seen.values())


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (4, 2)], ids=str)
def test_bits(narrow: Config, shape: tuple[int, int]) -> None:
    """Parameters, momentum, losses, and what an evaluation counts: as on one device."""
    assert end(narrow, BLOCKS, shape) == end(narrow, BLOCKS, (1, 1))


@pytest.mark.slow
def test_without_blocks_bits_differ(narrow: Config) -> None:
    """Were they the same anyhow, nothing would have been tested."""
    assert end(narrow, 0, (1, 2))[0] != end(narrow, 0, (4, 2))[0]


@pytest.mark.slow
def test_the_same_gradient(narrow: Config) -> None:
    """But for its rounding, it is that of the batch as a whole."""
    found, wanted = (end(narrow, blocks, (1, 2))[1] for blocks in (BLOCKS, 0))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_the_order_of_a_sum() -> None:
    """Neighbours first; the numbers are such that a chain would give others."""
    assert np.any(((ROWS[0] + ROWS[1]) + ROWS[2]) + ROWS[3] != TREE)
    np.testing.assert_array_equal(tree_sum(list(ROWS)), TREE)


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_the_order_of_a_sum_over_devices(rows: int) -> None:
    """Seven numbers, which no mesh divides, and a single one beside them."""

    def body(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        own = tree_sum(list(x))
        return sum_over_rows((own, own[0]))

    found, first = jax.jit(spread(body, make_mesh(rows, 1), BY_ROWS, REPLICATED))(ROWS)
    np.testing.assert_array_equal(found, TREE)
    assert first == TREE[0]


@pytest.mark.slow
def test_who_talks(narrow: Config) -> None:
    """Over `data` the gradients, once there and once back, as the plan's arithmetic has it; nothing else."""
    config = in_blocks(narrow, BLOCKS)
    program = compile_step(config, make_mesh(2, 2))
    assert surprises(config, (2, 2), program) == {}
    kinds = {one.kind for one in program.done if one.axis == DATA}
    assert kinds == {"all-to-all", "all-gather"}


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("train", {"blocks": 3}, "train.blocks=3 must be 0 or a power of two"),
        ("train", {"blocks": 64}, "train.blocks=64 does not divide train.batch_size=32; choose 64$"),
        (
            "network.conv3",
            {"then": ("activation", "batch_norm")},
            "train.blocks=4 splits the batch that the batch_norm of conv3 .* say --config.train.blocks=0",
        ),
    ],
)
def test_what_cannot_be(section: str, changes: dict, message: str) -> None:
    recipe = quickstart.get_config()
    recipe.train.blocks = 4
    part = functools.reduce(getattr, section.split("."), recipe)
    part.update(changes)
    with pytest.raises(ConfigError, match=message):
        build(recipe.to_dict())


def test_rows_that_get_no_block() -> None:
    check_blocks(4, 4)
    check_blocks(3, 0)
    with pytest.raises(
        ConfigError, match=r"blocks=2 does not divide over the mesh's 4 data rows; .*=1 or 2$"
    ):
        check_blocks(4, 2)
