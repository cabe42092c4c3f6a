"""The recipes for small pictures, on folders of pictures of the right size."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from etils import epath

from alexnet_jax.data.batches import open_packed
from alexnet_jax.data.packed import packed_path
from alexnet_jax.data.packing import Work, pack, plan_packing
from alexnet_jax.data.shards import PackedForm
from alexnet_jax.data.sources import FolderSource
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.training.loop import train
from configs import cifar10, fashion_mnist
from tests.commands.running import lines, narrow
from tests.data.images import encoded


@pytest.mark.slow
@pytest.mark.usefixtures("half_optimised")
@pytest.mark.parametrize(
    ("recipe", "name", "size"),
    [(cifar10, "cifar10", 32), (fashion_mnist, "fashion_mnist", 28)],
)
def test_small_pictures(recipe: ModuleType, name: str, size: int, tmp_path: Path) -> None:
    """Ten classes, packed from PNGs; a narrow network trains on them and is evaluated."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in range(10):
            folder = tmp_path / "folder" / split / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(8):
                pixels = (25 * label + rng.integers(0, 9, (size, size, 3))).astype(np.uint8)
                (folder / f"{i}.png").write_bytes(encoded(pixels, "PNG"))
    sections = {"train": {"log_every": 5}, "evaluation": {"batch_size": 80}}
    config = narrow(recipe.get_config(), tmp_path, 10, **sections)
    source = FolderSource(name, epath.Path(tmp_path / "folder"))
    assert pack(plan_packing(source, PackedForm(size, "raw"), packed_path(config.data)), Work())
    train(config, Workdir(str(tmp_path / "run")), open_packed(config.data, 10), make_mesh(1, 2))
    logged = lines(tmp_path / "run")
    assert [line["step"] for line in logged if line["split"] == "train"] == [5, 10]
    assert logged[-1]["split"] == "final" and 0 < logged[-1]["loss"] < 4
