"""Eight CPU devices, no silent broadcasting, and the configs that tests start from."""

import copy
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if "PYTEST_XDIST_WORKER" not in os.environ:
    # Most tests, and the commands that they run, compile the same few programs: once, for all workers.
    COMPILED = tempfile.TemporaryDirectory(prefix="compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import jax
import pytest
from hypothesis import settings

from alexnet_jax.config.building import build
from alexnet_jax.config.fields import Config
from alexnet_jax.sharding.platform import simulate_cpu_devices
from configs.imagenet import PAPER
from configs.imagenet import narrow as make_narrow
from tests.commands.running import STARTED, end
from tests.compiling import optimise

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder

    from alexnet_jax.storage.workdir import Workdir
    from alexnet_jax.trained.opened import TrainedRun

simulate_cpu_devices(8)
jax.config.update("jax_numpy_rank_promotion", "raise")
# The same examples in every run, however slow the machine: what passes once passes again.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One a core, and one more for slow tests, which wait for other processes; each takes up to 2 GB."""
    return min((os.cpu_count() or 1) + (not config.option.markexpr), 4)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: workers take a file at a time, and should end together."""
    longest = ["test_variant_steps", "test_processes", "test_slurm", "test_parity", "test_resume"]
    longest += ["test_one_of_two", "test_chaos", "test_blocks", "test_step", "test_hosts_apart", "test_mpi"]
    longest += ["test_prepare", "test_notebook", "test_sweep", "test_variants", "test_inspect"]
    longest += ["test_evaluate", "test_five_steps", "test_said", "test_imagenet"]
    items.sort(key=lambda item: longest.index(item.path.stem) if item.path.stem in longest else len(longest))


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A data folder with toyshapes, made by the first worker that needs it, for all."""
    from alexnet_jax.data.packing import pack_toyshapes
    from configs import quickstart

    base = tmp_path_factory.getbasetemp()
    path = (base if worker_id == "master" else base.parent) / "data"
    path.mkdir(exist_ok=True)
    with (path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        config = quickstart.get_config()
        config.data.dir = str(path)
        pack_toyshapes(build(config.to_dict()).data)
    return path


@pytest.fixture(scope="session")
def trained(data_dir: Path) -> Path:
    """A run of 30 steps on 1 x 2, trained by the first worker that needs it; it is only read."""
    from alexnet_jax.data.batches import open_packed
    from alexnet_jax.sharding.mesh import make_mesh
    from alexnet_jax.storage.workdir import Workdir
    from alexnet_jax.training.loop import train
    from configs import quickstart
    from tests.commands.running import narrow

    workdir = Workdir(str(data_dir.parent / "trained"))
    with (data_dir / "training").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if workdir.final() is None:
            config = narrow(quickstart.get_config(), data_dir, 30)
            workdir.check()
            train(config, workdir, open_packed(config.data, 10), make_mesh(1, 2))
    return workdir.path


@pytest.fixture(scope="session")
def paper() -> Config:
    """The full-size network, batches of 8."""
    return build(PAPER | {"train": PAPER["train"] | {"batch_size": 8}})


@pytest.fixture(scope="session")
def narrow() -> Config:
    """A network that compiles in seconds."""
    network = copy.deepcopy(PAPER["network"])
    make_narrow(network, (8, 16, 16, 16, 8, 16, 32))
    sections = {
        "network": network | {"image_size": 64, "classes": 10},
        "data": {"size": 72},
        "train": {"batch_size": 8},
        "evaluation": {"batch_size": 200},
    }
    return build(PAPER | {name: PAPER[name] | changes for name, changes in sections.items()})


@pytest.fixture
def half_optimised(monkeypatch: pytest.MonkeyPatch) -> None:
    """For programs that run a few times: optimising them takes longer than all else."""
    optimise(monkeypatch, 0)


@pytest.fixture
def less_optimised(monkeypatch: pytest.MonkeyPatch) -> None:
    """For those with larger batches, of which convolutions in float64 would take longest of all."""
    optimise(monkeypatch, 1)


@pytest.fixture(autouse=True)
def _commands_end() -> Iterator[None]:
    """Kills what a failed test has started."""
    yield
    while STARTED:
        with STARTED.pop() as process:
            end(process)


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> "DatasetBuilder":
    """Forty pictures to train and twenty to validate."""
    from alexnet_jax.data.sources import prepare
    from tests.data.builders import Toyshapes, ToyshapesConfig

    config = ToyshapesConfig("few", train_size=40, validation_size=20)
    return prepare(Toyshapes(data_dir=str(tmp_path_factory.mktemp("tfds")), config=config))


@pytest.fixture(scope="session")
def packed_path(few: "DatasetBuilder", tmp_path_factory: pytest.TempPathFactory) -> Path:
    from alexnet_jax.data.packing import Work, pack
    from tests.data.conftest import SIZE, plan

    path = tmp_path_factory.mktemp("packed") / f"toyshapes-{SIZE}"
    pack(plan(few, path), Work())
    return path


@pytest.fixture(scope="session")
def workdir(trained: Path) -> "Workdir":
    from alexnet_jax.storage.workdir import Workdir

    return Workdir(str(trained))


@pytest.fixture(scope="session")
def opened(workdir: "Workdir") -> "TrainedRun":
    """The trained run on two towers."""
    from alexnet_jax.sharding.mesh import make_mesh
    from alexnet_jax.trained.opened import load_run

    return load_run(workdir, mesh=make_mesh(1, 2))


@pytest.fixture(scope="session")
def home(packed_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which toyshapes are forty pictures to train and twenty to validate."""
    path = tmp_path_factory.mktemp("home")
    (path / "packed").mkdir()
    (path / "packed" / "toyshapes-72-raw").symlink_to(packed_path)
    return path
