"""Error rates over the validation split."""

import contextlib
from collections.abc import Callable

import jax
from jax.sharding import Mesh

from alexnet_jax.config import Config
from alexnet_jax.data.batches import EvaluationOrder, PackedSet
from alexnet_jax.learning.augment import Pixels, pixels
from alexnet_jax.learning.step import Params, make_evaluation_step, no_totals
from alexnet_jax.mesh import EVERYWHERE, shard
from alexnet_jax.run.feed import feed

SPLIT = "validation"


class Evaluator:
    """Loss, top-1 and top-5 error of parameters, every picture counted once whatever the batch and mesh."""

    def __init__(self, config: Config, mesh: Mesh, packed: PackedSet):
        self.config, self.mesh, self.packed = config, mesh, packed
        self.pixels = device_pixels(config, mesh, packed)
        self.step = make_evaluation_step(config, mesh, config.evaluation.views)
        self.images = packed.images(SPLIT)

    def __call__(self, params: Params, tell: Callable[[int], None] = lambda _: None) -> dict[str, float]:
        """`tell` hears of pictures that are done."""
        order = EvaluationOrder(self.images, self.config.evaluation.batch_size)
        steps = range(order.batches)
        totals = no_totals(self.mesh)
        with contextlib.closing(
            feed(self.packed, SPLIT, order, steps, self.mesh, self.config.data)
        ) as batches:
            for step, batch in enumerate(batches):
                before, totals = totals, self.step(params, totals, self.pixels, batch)
                jax.block_until_ready(before)  # as in training: no more than one waits
                tell(order.real(step))
        return totals.means()


def device_pixels(config: Config, mesh: Mesh, packed: PackedSet) -> Pixels:
    """The statistics of the training pictures, on every device."""
    statistics = packed.statistics
    looks = pixels(statistics.mean, statistics.covariance, config.augment)
    return jax.device_put(looks, shard(mesh, EVERYWHERE))
