"""The cost of a checkpoint of the full network, with digests and without, in turn in one process.

    python -m benchmarks.checkpoint --batch=128

Seconds until training may go on, until all is on disk, and until it is read back; and the steps that are
lost to a checkpoint that is written while training goes on. Mesh 1x2 of simulated devices.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from unittest import mock

import jax

from alexnet_jax.config.building import build
from alexnet_jax.learning.metrics import all_finite
from alexnet_jax.planning.cost import with_batch
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.sharding.platform import simulate_cpu_devices
from alexnet_jax.storage import checkpoint
from alexnet_jax.storage.checkpoint import Checkpoints, Retention
from benchmarks.ours import Trainer
from configs.imagenet import PAPER

STEPS = 4  # beside each checkpoint
RATE = 1e-4  # small enough that the numbers stay numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128, help="images a step")
    parser.add_argument("--runs", type=int, default=5, help="measured rounds")
    parser.add_argument("--folder", help="where to write, if not in the system's temporary folder")
    arguments = parser.parse_args()
    simulate_cpu_devices(2)
    trainer = Trainer(with_batch(build(PAPER), arguments.batch), make_mesh(1, 2), RATE)
    seconds = defaultdict(list)
    for run in range(arguments.runs + 1):
        for bare in (False, True) if run % 2 else (True, False):
            with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
                found = measure(trainer, Path(folder), bare=bare)
            for name, taken in found.items() if run else ():  # the first round compiles
                seconds[f"{name}{', no digests' * bare}"].append(taken)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    step = statistics.median(seconds["step"] + seconds["step, no digests"])
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(trainer.state))
    print(f"{size / 1e6:.0f} MB; a step of {arguments.batch} pictures takes {step:.2f} s")
    for name in ("blocked", "written", "read"):
        with_digests, without = medians[name], medians[f"{name}, no digests"]
        print(f"{name:<8} {with_digests:.3f} s with digests, {without:.3f} s without")
    for suffix in ("", ", no digests"):
        lost = (medians[f"beside{suffix}"] - STEPS * step) / step
        print(f"steps lost to a checkpoint{suffix}: {lost:.2f}")
    print(json.dumps(seconds))


def measure(trainer: Trainer, folder: Path, *, bare: bool) -> dict[str, float]:
    """Seconds of one checkpoint alone, and of one beside steps."""
    taken = {}

    def note(name: str, began: float) -> None:
        taken[name] = time.perf_counter() - began

    with contextlib.ExitStack() as held:
        if bare:
            held.enter_context(mock.patch.object(checkpoint, "digests", lambda _: {}))
        checkpoints = held.enter_context(contextlib.closing(Checkpoints(folder, Retention(9))))
        began = time.perf_counter()
        trainer.train()
        note("step", began)
        began = time.perf_counter()
        _save(checkpoints, 1, trainer)
        note("blocked", began)
        checkpoints.wait()
        note("written", began)
        began = time.perf_counter()
        checkpoints.restore(1, jax.tree.map(_place, trainer.state))
        note("read", began)
        began = time.perf_counter()
        _save(checkpoints, 2, trainer)
        for _ in range(STEPS):
            trainer.train()
        checkpoints.wait()
        note("beside", began)
    return taken


def _place(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _save(checkpoints: Checkpoints, step: int, trainer: Trainer) -> None:
    """Saves as the loop does."""
    bool(all_finite(trainer.state))
    checkpoints.save(step, trainer.state, {})


if __name__ == "__main__":
    main()
