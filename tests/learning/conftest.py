"""Programs that are compiled in less time."""

import pytest

from alexnet_jax.learning import step
from alexnet_jax.mesh import compiler_options


@pytest.fixture
def half_optimised(monkeypatch: pytest.MonkeyPatch) -> None:
    """For programs that run a few times: optimising them takes longer than all else."""
    optimise(monkeypatch, 0)


@pytest.fixture
def less_optimised(monkeypatch: pytest.MonkeyPatch) -> None:
    """For those with larger batches, of which convolutions in float64 would take longest of all."""
    optimise(monkeypatch, 1)


def optimise(monkeypatch: pytest.MonkeyPatch, level: int) -> None:
    def options(platform: str) -> dict[str, str | int]:
        return compiler_options(platform) | {"xla_backend_optimization_level": level}

    monkeypatch.setattr(step, "compiler_options", options)
