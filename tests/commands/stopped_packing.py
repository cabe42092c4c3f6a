"""Packing by worker processes that stand still at a certain file, where something happens to them.

    python -c "from tests.commands.stopped_packing import main; main()" FLAGS OF PREPARE

$DEED says what, $AT at which file of the training split.
"""

import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from alexnet_jax.data import packing, shards, workers
from alexnet_jax.data.shards import PackedForm, Shard
from alexnet_jax.data.sources import TRAIN, Part

PICTURE = 3 * 16**2  # bytes of one of 16 x 16 pixels: a file holds one
DEEDS: dict[str, Callable[[], None]] = {
    "kill": lambda: os.kill(os.getppid(), signal.SIGKILL),
    "kill a worker": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "Ctrl-C": lambda: os.killpg(0, signal.SIGINT),  # a terminal tells all of them
}


def write_shard(shard: Shard, part: Part, form: PackedForm) -> Iterator[int | dict[str, str]]:
    """Writes the files before; once they are whole it happens, and all wait until they are to stop."""
    number, last = int(shard.file_name.split("-")[-3]), int(os.environ["AT"])
    if shard.split == TRAIN and number < last:
        yield from shards.write_shard(shard, part, form)
        return
    if shard.split == TRAIN and number == last:
        while len(list(Path(shard.notes_path).parent.glob("*.npz"))) < last:
            time.sleep(0.2)
        DEEDS[os.environ["DEED"]]()
    while not workers._process[
        "stop"
    ].is_set():  # one that is killed in `wait` would keep who sets it waiting
        time.sleep(0.2)
    yield 0


def main() -> None:
    packing.SHARD_BYTES, packing.write_shard = PICTURE, write_shard
    sys.argv[0] = "alexnet_jax.prepare"
    runpy.run_module("alexnet_jax.prepare", run_name="__main__", alter_sys=True)
