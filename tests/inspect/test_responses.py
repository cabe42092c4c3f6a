"""Responses are those of the run's own pictures and parameters, the same on any mesh."""

from pathlib import Path

import jax
import numpy as np
import pytest

from alexnet_jax.errors import ConfigError
from alexnet_jax.inspect.stages import Response, first_pictures, measured, responses, scores
from alexnet_jax.learning.prediction import make_activation_step
from alexnet_jax.network.shapes import stage_names
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.trained.opened import TrainedRun, load_run
from alexnet_jax.training.evaluation import Evaluator

PICTURES = 40


@pytest.fixture(scope="module")
def alone(trained: Path) -> TrainedRun:
    return load_run(Workdir(str(trained)), None, make_mesh(1, 1))


@pytest.fixture(scope="module")
def spread_out(trained: Path) -> TrainedRun:
    return load_run(Workdir(str(trained)), None, make_mesh(4, 2))


@pytest.mark.slow
def test_against_the_stages(alone: TrainedRun) -> None:
    """Statistics equal those of the stages in float64; the gradient at scores sums to 0 over classes."""
    batch, names = first_pictures(alone, PICTURES), stage_names(alone.config.network)
    found = measured(alone, batch)
    assert [(one.stage, one.tower) for one in found] == [(name, t) for name in names for t in (0, 1)]
    stages = jax.device_get(
        make_activation_step(alone.config, alone.mesh, names)(alone.state, alone.pixels, batch.pictures)
    )
    for one in found:
        numbers = stages[one.stage][one.tower].astype(np.float64)
        seen = one.activation
        wanted = (numbers.mean(), numbers.std(), np.mean(numbers == 0), np.linalg.norm(numbers))
        np.testing.assert_allclose(
            (seen.mean, seen.deviation, seen.zeros, seen.norm), wanted, rtol=1e-4, atol=1e-5
        )
    last = [one.gradient for one in found if one.stage == "fc8"]
    assert abs(sum(gradient.mean for gradient in last)) < 1e-6 < last[0].norm


@pytest.mark.slow
def test_the_same_on_any_mesh(alone: TrainedRun, spread_out: TrainedRun) -> None:
    ones, others = (measured(run, first_pictures(run, PICTURES)) for run in (alone, spread_out))
    for one, other in zip(ones, others, strict=True):
        assert (one.stage, one.tower) == (other.stage, other.tower)
        for seen, again in zip(numbers(one), numbers(other), strict=True):
            assert again == pytest.approx(seen, rel=1e-4, abs=1e-6)


def numbers(one: Response) -> list[float]:
    return jax.tree.leaves((one.activation, one.gradient))


@pytest.mark.slow
def test_scores(alone: TrainedRun, spread_out: TrainedRun) -> None:
    """Scores are those of evaluation, before the softmax."""
    found = scores(alone, PICTURES)
    assert found.shape == (PICTURES, 10)
    np.testing.assert_allclose(scores(spread_out, PICTURES), found, rtol=1e-4, atol=1e-5)
    wanted, _ = Evaluator(alone.config, alone.mesh, alone.packed).predict(alone.state)
    likely = found - np.log(np.exp(found.astype(np.float64)).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(likely, wanted[:PICTURES], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_as_a_table(alone: TrainedRun) -> None:
    """A stage once, a tower on a line."""
    heads, *rows = responses(alone, PICTURES).splitlines()
    assert heads.split()[:6] == ["stage", "tower", "mean", "deviation", "zeros", "norm"]
    names = stage_names(alone.config.network)
    assert [row.split()[:2] for row in rows[0::2]] == [[name, "0"] for name in names]
    assert [row.split()[0] for row in rows[1::2]] == ["1"] * len(names)
    found = measured(alone, first_pictures(alone, PICTURES))
    assert rows[-1].split()[1:] == [f"{x:.4g}" for x in written(found[-1])]


def written(one: Response) -> list[float]:
    seen, gradient = one.activation, one.gradient
    return [
        *(seen.mean, seen.deviation, seen.zeros, seen.norm),
        *(gradient.mean, gradient.deviation, gradient.norm),
    ]


def test_the_first_pictures(alone: TrainedRun, spread_out: TrainedRun) -> None:
    """The first of the validation split, in order; an evaluation batch by default."""
    batch = first_pictures(spread_out)
    assert batch.pictures.shape[0] == alone.config.evaluation.batch_size
    pictures, labels = alone.packed.table("validation")(np.arange(8))
    np.testing.assert_array_equal(np.asarray(batch.pictures)[:8], pictures)
    np.testing.assert_array_equal(np.asarray(batch.labels)[:8], labels)
    for wrong, words in (
        (0, "from 1 to 1000"),
        (1001, "from 1 to 1000"),
        (10, "4 data rows; choose 8 or 12"),
    ):
        with pytest.raises(ConfigError, match=words):
            first_pictures(spread_out, wrong)
