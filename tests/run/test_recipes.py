"""The recipes for small pictures, on folders of pictures of the right size."""

from pathlib import Path

import numpy as np
import pytest

from tests.data.images import encoded
from tests.run.commands import NARROW, lines, run


@pytest.mark.parametrize(("name", "size"), [("cifar10", 32), ("fashion_mnist", 28)])
def test_small_pictures(name: str, size: int, tmp_path: Path) -> None:
    """Ten classes, packed from PNGs; a narrow network trains on them and is evaluated."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in range(10):
            folder = tmp_path / "folder" / split / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(8):
                pixels = (25 * label + rng.integers(0, 9, (size, size, 3))).astype(np.uint8)
                (folder / f"{i}.png").write_bytes(encoded(pixels, "PNG"))
    flags = (f"--dataset={name}", f"--size={size}", f"--folder={tmp_path / 'folder'}", "--processes=1")
    out, _ = run("prepare", *flags, data_dir=tmp_path)
    assert f"{name}: 80 train, 80 validation pictures, 10 classes" in out
    training = (
        f"--config=configs/{name}.py",
        f"--workdir={tmp_path / 'run'}",
        *NARROW,
        "--config.train.steps=10",
        "--config.train.log_every=5",
        "--config.evaluation.batch_size=80",
    )
    run("main", *training, data_dir=tmp_path)
    logged = lines(tmp_path / "run")
    assert [line["step"] for line in logged if line["split"] == "train"] == [5, 10]
    assert logged[-1]["split"] == "final" and 0 < logged[-1]["loss"] < 4
