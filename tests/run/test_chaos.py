"""A little of what tests/run/chaos.py and tests/fuzz.py can go on with for hours."""

from pathlib import Path

import pytest

from tests.fuzz import TARGETS, fuzz
from tests.run.chaos import Plan, disturb


def test_disturbances(data_dir: Path, tmp_path: Path) -> None:
    plan = Plan(3, seed=3, kinds="kill flip full", steps=300, data_dir=data_dir)
    assert disturb(tmp_path, plan) == []


# ml_collections imports as Python once did; of damaged files NumPy and TFDS leave some open.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("name", "trials"), [("overrides", 300), ("json", 500), ("pictures", 5000), ("index", 50)]
)
def test_damage(name: str, trials: int, data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "tfds").symlink_to(data_dir / "tfds")
    assert fuzz(TARGETS[name](tmp_path), seed=0, trials=trials) == []
