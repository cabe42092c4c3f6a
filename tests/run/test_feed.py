"""What reading takes of memory."""

import subprocess
import sys
from pathlib import Path

from etils import epath

from alexnet_jax.data.packing import Work, make_plan, pack
from alexnet_jax.data.shards import Form
from alexnet_jax.data.sources import FolderSource
from tests.data.images import encoded, photo
from tests.run.commands import ROOT

# Five epochs on a device; after each, the resident memory in pages.
FIVE_EPOCHS = """
import pathlib, sys
import jax, numpy as np
from etils import epath
from alexnet_jax.config import DataConfig
from alexnet_jax.data.batches import PackedSet, TrainingOrder
from alexnet_jax.mesh import make_mesh
from alexnet_jax.run.feed import feed

packed = PackedSet(epath.Path(sys.argv[1]))
order = TrainingOrder(seed=0, images=packed.images("train"), batch_size=50)
config = DataConfig("many", 256, "raw", "", read_ahead=4, threads=0, keep_mib=0, trace=False)
steps = 5 * packed.images("train") // 50
for done, batch in enumerate(feed(packed, "train", order, range(steps), make_mesh(1, 1), config), 1):
    jax.block_until_ready(batch)
    if done % (steps // 5) == 0:
        print(pathlib.Path("/proc/self/statm").read_text().split()[1])
"""


def test_memory_is_flat(tmp_path: Path) -> None:
    """Five epochs of 4,000 pictures of 256 x 256 pixels, within 5 % of what the first has taken."""
    for split, count in (("train", 4000), ("val", 1)):
        (tmp_path / split / "class").mkdir(parents=True)
        for i in range(count):
            path = tmp_path / split / "class" / f"{i}.jpg"
            if i < 20:
                path.write_bytes(encoded(photo(i, 256, 256)))
            else:
                path.symlink_to(path.with_stem(str(i % 20)))
    source = FolderSource("many", epath.Path(tmp_path))
    assert pack(make_plan(source, Form(256, "raw"), epath.Path(tmp_path / "packed")), Work())
    found = subprocess.run(
        [sys.executable, "-c", FIVE_EPOCHS, str(tmp_path / "packed")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    pages = [int(line) for line in found.stdout.split()]
    print(f"resident after each epoch: {[page * 4096 >> 20 for page in pages]} MiB")
    assert len(pages) == 5
    assert max(pages[1:]) < 1.05 * pages[0], pages
