"""The memory that reading takes."""

import subprocess
import sys
from pathlib import Path

import pytest
from etils import epath

from alexnet_jax.data.packing import Work, pack, plan_packing
from alexnet_jax.data.shards import PackedForm
from alexnet_jax.data.sources import FolderSource
from tests.commands.running import ROOT
from tests.data.images import encoded, photo

# A hundred epochs on a device; after each twenty, the resident memory in pages.
EPOCHS = """
import pathlib, sys
import jax, numpy as np
from etils import epath
from alexnet_jax.config.fields import DataConfig
from alexnet_jax.data.batches import PackedSet, TrainingOrder
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.training.feed import feed

packed = PackedSet(epath.Path(sys.argv[1]))
order = TrainingOrder(seed=0, images=packed.images("train"), batch_size=50)
config = DataConfig("many", 256, "raw", "", read_ahead=4, threads=0, keep_mib=0, trace=False)
steps = 100 * packed.images("train") // 50
for done, batch in enumerate(feed(packed, "train", order, range(steps), make_mesh(1, 1), config), 1):
    jax.block_until_ready(batch)
    if done % (steps // 5) == 0:
        print(pathlib.Path("/proc/self/statm").read_text().split()[1])
"""


@pytest.mark.slow
def test_memory_is_flat(tmp_path: Path) -> None:
    """20,000 pictures of 256 x 256 pixels are read, the last 16,000 in 5 % more than the first 4,000."""
    for split, count in (("train", 200), ("val", 1)):
        (tmp_path / split / "class").mkdir(parents=True)
        for i in range(count):
            (tmp_path / split / "class" / f"{i}.jpg").write_bytes(encoded(photo(i % 20, 256, 256)))
    source = FolderSource("many", epath.Path(tmp_path))
    assert pack(plan_packing(source, PackedForm(256, "raw"), epath.Path(tmp_path / "packed")), Work())
    found = subprocess.run(
        [sys.executable, "-c", EPOCHS, str(tmp_path / "packed")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    pages = [int(line) for line in found.stdout.split()]
    print(f"resident after each fifth: {[page * 4096 >> 20 for page in pages]} MiB")
    assert len(pages) == 5
    assert max(pages[1:]) < 1.05 * pages[0], pages
