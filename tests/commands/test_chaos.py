"""A little of what tests/commands/chaos.py and tests/fuzz.py can go on with for hours."""

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.commands.chaos import Plan, disturb
from tests.fuzz import TARGETS, Target, attempt, fuzz


@pytest.mark.slow
def test_disturbances(data_dir: Path, tmp_path: Path) -> None:
    plan = Plan(2, seed=3, kinds="flip full", steps=200, data_dir=data_dir)
    assert disturb(tmp_path, plan) == []


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    folder = tmp_path_factory.mktemp("damage")
    return {name: TARGETS[name](folder) for name in ("overrides", "json")}


# ml_collections imports as Python once did.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize("name", ["overrides", "json"])
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(rng=st.randoms(use_true_random=False))
def test_taken_or_refused(name: str, targets: dict[str, Target], rng: random.Random) -> None:
    """Overrides and files of a run, some of them wrong."""
    outcome, detail = attempt(targets[name], rng)
    assert outcome in ("taken", "refused"), detail


# Of damaged files NumPy and TFDS leave some open.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("name", "trials"), [("pictures", 2000), ("index", 30)])
def test_damage(name: str, trials: int, tmp_path: Path) -> None:
    assert fuzz(TARGETS[name](tmp_path), seed=0, trials=trials) == []
