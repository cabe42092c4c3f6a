"""The project's own step, on one device that holds both towers.

It does more than the others: it takes 256 px pictures and crops, flips and colours them on the device.
"""

from collections.abc import Callable

import jax
import numpy as np

from alexnet_jax.build import build
from alexnet_jax.learning.augment import pixels
from alexnet_jax.learning.metrics import Totals
from alexnet_jax.learning.prediction import make_evaluation_step
from alexnet_jax.learning.schedule import Pace
from alexnet_jax.learning.state import Batch, init_state
from alexnet_jax.learning.step import make_train_step
from alexnet_jax.sharding.mesh import make_mesh
from configs.imagenet import PAPER


def contender(batch: int, rate: float) -> tuple[Callable[[], None], Callable[[], None]]:
    """A training step and a forward pass, each returning when it is done."""
    config = build(PAPER)
    mesh = make_mesh(1, 1)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (batch, 256, 256, 3), dtype=np.uint8)
    labels = rng.integers(0, 1000, batch).astype(np.int32)
    rows = jax.device_put(Batch(pictures, labels))
    looks = jax.device_put(
        pixels(np.full((256, 256, 3), 127.5), 3000 * np.ones(3), np.eye(3), config.augment)
    )
    train_step, evaluation_step = make_train_step(config, mesh), make_evaluation_step(config, mesh, views=1)
    state = init_state(config, mesh)

    def train() -> None:
        nonlocal state
        state, *_ = jax.block_until_ready(train_step(state, Totals.zero(), looks, rows, Pace.steady(rate)))

    def forward() -> None:
        jax.block_until_ready(evaluation_step(state, Totals.zero(), looks, rows))

    return train, forward
