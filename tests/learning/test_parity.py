"""The full-size network computes the same on every mesh, and talks where the paper's GPUs did.

Reference: the same steps on the mesh 1x1, where one device holds both towers and all rows.

At the paper's rate each step starts where the reference's did; three steps on end are compared at a rate far
below it. Sums over rows, rounded in another order, change weights in their last bit, and from the second step
on a few units in millions, which stand within rounding of 0 or of their neighbour in a pool, fall the other
way: no error, but up to 1e-3 of the next gradient. `test_narrow_parity` takes steps on end at the paper's
rate, in float64, where none does.
"""

import math
from typing import Any

import jax
import numpy as np
import pytest

from alexnet_jax.config.fields import Config
from alexnet_jax.learning.state import State, init_state
from alexnet_jax.sharding.mesh import make_mesh
from tests.learning.collectives import collectives
from tests.learning.steps import Trainer, blotched_rows, relative_error, velocity

SHAPES = [(2, 2), *(pytest.param(shape, marks=pytest.mark.slow) for shape in ((1, 2), (2, 1), (4, 2)))]
RATE, STEPS = 0.01, 3
SMALL_RATE = 1e-6


@pytest.fixture(scope="module")
def alone(paper: Config) -> Trainer:
    return Trainer(paper, make_mesh(1, 1))


@pytest.fixture(scope="module")
def reference(alone: Trainer, paper: Config) -> dict:
    """Three steps on end at the paper's rate."""
    start = jax.device_get(init_state(paper, alone.mesh))
    return alone.run([RATE] * STEPS, start, draw=blotched_rows)


@pytest.fixture(scope="module", params=SHAPES, ids=lambda shape: "{}x{}".format(*shape))
def sharded(request: pytest.FixtureRequest, paper: Config) -> Trainer:
    return Trainer(paper, make_mesh(*request.param))


def gradient(before: State, after: State, rate: float, config: Config) -> dict:
    """The gradient that the step must have seen: v' = momentum * v - rate * (g + decay * w)."""
    rule = config.optimizer

    def undo(path: tuple, new: np.ndarray, old: np.ndarray, w: np.ndarray) -> np.ndarray:
        decay = rule.weight_decay if path[-1].key == "kernel" else 0
        return (rule.momentum * old - new) / rate - decay * w

    return jax.tree.map_with_path(undo, velocity(after), velocity(before), before.params)


def differences(found: dict, wanted: dict, rate: float, config: Config) -> dict[str, float]:
    """The largest relative error of any array, of the losses and after each step."""

    def worst(part: Any) -> float:
        pairs = zip(found["states"][1:], wanted["states"][1:], strict=True)
        return max(relative_error(part(mine), part(theirs)) for mine, theirs in pairs)

    first = [gradient(*run["states"][:2], rate, config) for run in (found, wanted)]
    return {
        "loss": float(np.max(np.abs(np.divide(found["losses"], wanted["losses"]) - 1))),
        "gradient": relative_error(*first),
        "velocity": worst(velocity),
        "parameters": worst(lambda state: state.params),
    }


def check(name: str, errors: dict[str, float]) -> None:
    print(f"{name}: " + ", ".join(f"{what} {error:.1e}" for what, error in errors.items()))
    assert max(errors.values()) < 1e-5, errors


def test_each_step_at_the_papers_rate(sharded: Trainer, reference: dict, paper: Config) -> None:
    """Loss, gradient, velocity and parameters, with crops, flips, colour noise and dropout on."""
    for i in range(STEPS):
        one = {"losses": reference["losses"][i : i + 1], "states": reference["states"][i : i + 2]}
        found = sharded.run([RATE], one["states"][0], first=i, draw=blotched_rows)
        check(f"{sharded.mesh.devices.shape}, step {i + 1}", differences(found, one, RATE, paper))


@pytest.fixture(scope="module")
def slow_reference(alone: Trainer, paper: Config) -> dict:
    """Three steps on end at a rate far below the paper's."""
    return alone.run([SMALL_RATE] * STEPS, init_state(paper, alone.mesh))


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [(2, 2), (4, 2)], indirect=True, ids="{0[0]}x{0[1]}".format)
def test_three_steps_on_end(sharded: Trainer, slow_reference: dict, paper: Config) -> None:
    """The same, each mesh for itself from the seed to the third step."""
    found = sharded.run([SMALL_RATE] * STEPS, init_state(paper, sharded.mesh))
    errors = differences(found, slow_reference, SMALL_RATE, paper)
    check(f"{sharded.mesh.devices.shape}, steps 1 to 3", errors)


def test_communication(sharded: Trainer, paper: Config) -> None:
    """Five gathers over `tower` and the transposes of four; over `data` the gradient; else a few numbers.

    After the last crossing all towers have the gradient of all scores.
    """
    data, tower = sharded.mesh.devices.shape
    expected = crossings(paper, data) if tower > 1 else []
    rows = {tuple(tuple(range(d * tower, (d + 1) * tower)) for d in range(data))} if tower > 1 else set()
    found = collectives(sharded.text)
    gathers = [c for c in found if c.kind == "all-gather"]
    scatters = [c for c in found if c.kind == "reduce-scatter"]
    assert sorted(sum(c.sizes) for c in gathers) == sorted(expected)
    assert sorted(sum(c.sizes) * tower for c in scatters) == sorted(expected[:-1])
    assert {c.groups for c in (*gathers, *scatters)} == rows
    reduced = [c for c in found if c.kind == "all-reduce"]
    assert len(found) == len(gathers) + len(scatters) + len(reduced)
    # The totals over rows, the norms of eight layers over towers.
    gradient = 60_965_224 // tower + 4 if data > 1 else 0
    assert sum(sum(c.sizes) for c in reduced) == gradient + (8 if tower > 1 else 0)


def crossings(config: Config, data: int) -> list[int]:
    """Numbers that a device holds after each of the five crossings."""
    rows = config.train.batch_size // data
    return [rows * n for n in (13 * 13 * 256, 6 * 6 * 256, 4096, 4096, 1000)]


def test_compiled_step_has_no_slow_operation(sharded: Trainer) -> None:
    """Neither scatters, nor XLA's pool gradient, nor grouped or batched-over-towers convolutions."""
    lines = sharded.text.splitlines()
    convolutions = [line for line in lines if " convolution(" in line]
    assert len(convolutions) >= 14 // sharded.mesh.devices.shape[1]
    assert not [line for line in convolutions if "group_count" in line]
    assert not [line for line in lines if " scatter(" in line or " select-and-scatter(" in line]


def test_size_and_initial_loss(reference: dict) -> None:
    """60,965,224 parameters; before learning, 1000 classes are nearly equally likely."""
    numbers = sum(x.size for x in jax.tree.leaves(reference["states"][0].params))
    assert numbers == 60_965_224
    print("initial loss", reference["losses"][0], "ln 1000 =", math.log(1000))
    assert abs(reference["losses"][0] - math.log(1000)) < 0.5
