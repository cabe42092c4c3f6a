"""Programs that are compiled in less time."""

import pytest

from alexnet_jax.learning import step
from alexnet_jax.mesh import compiler_options


@pytest.fixture
def half_optimised(monkeypatch: pytest.MonkeyPatch) -> None:
    """For programs that run a few times: optimising them takes longer than all else."""

    def options(platform: str) -> dict[str, str | int]:
        return compiler_options(platform) | {"xla_backend_optimization_level": 0}

    monkeypatch.setattr(step, "compiler_options", options)
