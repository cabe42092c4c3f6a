"""Eight CPU devices, no silent broadcasting, and the configs that tests start from."""

import copy
import fcntl
import os
import tempfile
from pathlib import Path

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

from alexnet_jax.build import build
from alexnet_jax.config import Config
from alexnet_jax.sharding.platform import simulate_cpu_devices
from configs.imagenet import PAPER
from configs.imagenet import narrow as make_narrow

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
    from alexnet_jax.data.sources import prepare
    from alexnet_jax.data.toyshapes import Toyshapes

    base = tmp_path_factory.getbasetemp()
    path = (base if worker_id == "master" else base.parent) / "data"
    path.mkdir(exist_ok=True)
    with (path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        prepare(Toyshapes(data_dir=str(path / "tfds")))
    return path


@pytest.fixture(scope="session")
def trained(data_dir: Path) -> Path:
    """A run of 30 steps on 1 x 2, trained by the first worker that needs it; it is only read."""
    from alexnet_jax.data.batches import open_packed
    from alexnet_jax.run.loop import train
    from alexnet_jax.run.workdir import Workdir
    from alexnet_jax.sharding.mesh import make_mesh
    from configs import quickstart
    from tests.run.commands import narrow

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
