"""The loop does not run ahead of the devices."""

import os
import subprocess
import sys
from pathlib import Path

from tests.run.commands import COMPILED, ROOT

# Batches that cost nothing: steps are launched as fast as the loop lets them.
RUNNING_AHEAD = """
import dataclasses, sys
from alexnet_jax.config import build
from alexnet_jax.data.batches import open_packed
from alexnet_jax.mesh import open_mesh
from alexnet_jax.run import loop
from alexnet_jax.run.workdir import Workdir
from configs import quickstart

config = build(quickstart.get_config().to_dict())
config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=150))
config = dataclasses.replace(config, data=dataclasses.replace(config.data, dir=sys.argv[1]))
read = loop.feed

def repeated(packed, split, order, steps, *others):
    batch = next(read(packed, split, order, range(1), *others))
    for _ in steps:
        yield batch

loop.feed = repeated
mesh = open_mesh(config)
loop.train(config, Workdir(sys.argv[2]), open_packed(config.data, 10), mesh)
"""


def test_steps_do_not_pile_up(data_dir: Path, tmp_path: Path) -> None:
    """With 32 steps in flight on two simulated devices and two cores, XLA:CPU stands still for ever."""
    found = subprocess.run(
        [sys.executable, "-c", RUNNING_AHEAD, str(data_dir), str(tmp_path)],
        cwd=ROOT,
        env=os.environ | COMPILED,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "150/150  final" in found.stdout, found.stderr
