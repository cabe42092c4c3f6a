"""What `plan` expects of this CPU against the real training step, measured in turn in one process.

    python -m benchmarks.plan --batch=16

The full network on the meshes 1x1 and 1x2 of simulated devices. The machine's rates, from which the plan is
made, are measured between the steps: on a shared machine they wander, and the steps with them.
"""

import argparse
import json
import statistics

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.build import build
from alexnet_jax.config import Config
from alexnet_jax.learning.augment import pixels
from alexnet_jax.learning.metrics import Totals
from alexnet_jax.learning.schedule import Pace
from alexnet_jax.learning.state import Batch, init_state
from alexnet_jax.learning.step import make_train_step
from alexnet_jax.planning.chips import FITTED, cpu, probes
from alexnet_jax.planning.cost import estimate, with_batch
from alexnet_jax.sharding.mesh import ROWS, make_mesh, shard
from alexnet_jax.sharding.platform import simulate_cpu_devices
from benchmarks.step import interleaved
from configs.imagenet import PAPER

RATE = 1e-4  # small enough that the numbers stay numbers
SHAPES = ((1, 1), (1, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16, help="images a step")
    parser.add_argument("--runs", type=int, default=9, help="measured rounds")
    arguments = parser.parse_args()
    simulate_cpu_devices(2)
    config, measured = with_batch(build(PAPER), arguments.batch), probes()
    works = {name: work for name, (work, _) in measured.items()}
    steps = {f"{data}x{tower}": Trainer(config, make_mesh(data, tower)) for data, tower in SHAPES}
    seconds = interleaved(works | steps, arguments.runs)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    rates = {name: amount / medians[name] for name, (_, amount) in measured.items()}
    report = {name: rate / 1e9 for name, rate in rates.items()} | {"batch": arguments.batch, "share": FITTED}
    print(
        f"product {rates['product'] / 1e9:.1f} GFLOP/s, additions {rates['stream'] / 1e9:.1f} GB/s, "
        f"new memory {rates['fresh'] / 1e9:.1f} GB/s"
    )
    for data, tower in SHAPES:
        expected = estimate(config, data, tower, tower, cpu(**rates, devices=data * tower))
        name = f"{data}x{tower}"
        found = arguments.batch / medians[name]
        report[name] = {"measured": found, "expected": expected.images_per_second}
        print(
            f"{name}  measured {found:.2f} images/s, expected {expected.images_per_second:.2f}, "
            f"{expected.images_per_second / found - 1:+.0%}"
        )
    print(json.dumps(report | {"seconds": seconds}))


class Trainer:
    """Training steps on random pictures; each call returns when its step is done."""

    def __init__(self, config: Config, mesh: Mesh):
        rng, batch = np.random.default_rng(0), config.train.batch_size
        rows = Batch(
            rng.integers(0, 256, (batch, 256, 256, 3), dtype=np.uint8),
            rng.integers(0, config.network.classes, batch).astype(np.int32),
        )
        self._rows = jax.device_put(rows, shard(mesh, ROWS))
        self._looks = pixels(np.full((256, 256, 3), 127.5), 3000 * np.ones(3), np.eye(3), config.augment)
        self._step, self.state = make_train_step(config, mesh), init_state(config, mesh)

    def __call__(self) -> None:
        given = (self.state, Totals.zero(), self._looks, self._rows, Pace.steady(RATE))
        self.state, *_ = jax.block_until_ready(self._step(*given))


if __name__ == "__main__":
    main()
