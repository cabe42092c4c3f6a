"""A small run on two towers that all look at, and the packed sets of tests/data."""

from pathlib import Path

import pytest

from alexnet_jax.run.workdir import Workdir
from alexnet_jax.seeing.opened import Opened, open_run
from alexnet_jax.sharding.mesh import make_mesh
from tests.data.conftest import few, packed_path
from tests.learning.conftest import half_optimised
from tests.run.conftest import _commands_end

__all__ = ["_commands_end", "few", "half_optimised", "packed_path"]


@pytest.fixture(scope="session")
def workdir(trained: Path) -> Workdir:
    return Workdir(str(trained))


@pytest.fixture(scope="session")
def opened(workdir: Workdir) -> Opened:
    return open_run(workdir, mesh=make_mesh(1, 2))


@pytest.fixture(scope="session")
def home(packed_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which toyshapes are forty pictures to train and twenty to validate."""
    path = tmp_path_factory.mktemp("home")
    (path / "packed").mkdir()
    (path / "packed" / "toyshapes-72-raw").symlink_to(packed_path)
    return path
