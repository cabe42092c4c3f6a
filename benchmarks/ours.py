"""The project's own step, on one device that holds both towers.

It does more than the others: it takes 256 px pictures and crops, flips and colours them on the device.
"""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.config.building import build
from alexnet_jax.config.fields import Config
from alexnet_jax.learning.augment import pixels
from alexnet_jax.learning.metrics import Totals
from alexnet_jax.learning.prediction import make_evaluation_step
from alexnet_jax.learning.schedule import Pace
from alexnet_jax.learning.state import Batch, init_state
from alexnet_jax.learning.step import make_train_step
from alexnet_jax.planning.cost import with_batch
from alexnet_jax.sharding.mesh import ROWS, make_mesh, shard
from configs.imagenet import PAPER


class Trainer:
    """Training steps and forward passes on random pictures; each call returns when it is done."""

    def __init__(self, config: Config, mesh: Mesh, rate: float):
        rng, batch = np.random.default_rng(0), config.train.batch_size
        pictures = rng.integers(0, 256, (batch, 256, 256, 3), dtype=np.uint8)
        labels = rng.integers(0, config.network.classes, batch).astype(np.int32)
        self.rows = jax.device_put(Batch(pictures, labels), shard(mesh, ROWS))
        self.pixels = pixels(np.full((256, 256, 3), 127.5), 3000 * np.ones(3), np.eye(3), config.augment)
        self.step, self.evaluate = make_train_step(config, mesh), make_evaluation_step(config, mesh, views=1)
        self.state, self.pace = init_state(config, mesh), Pace.steady(rate)

    def train(self) -> None:
        given = (self.state, Totals.zero(), self.pixels, self.rows, self.pace)
        self.state, *_ = jax.block_until_ready(self.step(*given))

    def forward(self) -> None:
        jax.block_until_ready(self.evaluate(self.state, Totals.zero(), self.pixels, self.rows))


def contender(batch: int, rate: float) -> tuple[Callable[[], None], Callable[[], None]]:
    """A training step and a forward pass."""
    trainer = Trainer(with_batch(build(PAPER), batch), make_mesh(1, 1), rate)
    return trainer.train, trainer.forward
