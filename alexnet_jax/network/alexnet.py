"""AlexNet, straight down the page (section 3.5, Figure 2).

    scores = AlexNet(seed=0)(images)  # [B, 1000] of [B, 224, 224, 3]

On one device as it stands. `sharding/` splits the same object over a mesh, a tower or several to a device.
Networks of another structure are in variants.py.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx

from alexnet_jax.network.layers import Conv, Dense, Towers, cross, dropout, first_rngs, join
from alexnet_jax.network.lrn import local_response_norm
from alexnet_jax.network.pool import max_pool, pooled
from alexnet_jax.network.precision import PRECISIONS
from alexnet_jax.sharding.platform import Form

# Receives the activations of each stage (`shapes.stage_names`), by tower, and returns what goes on instead.
Tap = Callable[[str, Towers], Towers]


def no_tap(_: str, x: Towers) -> Towers:
    return x


class AlexNet(nnx.Module):
    """Five convolutions and three fully connected layers, in towers that meet five times.

    `form` is "plain" for JAX's own operations, "fast" for some of ours that have no forward mode.
    """

    def __init__(
        self,
        seed: int | jax.Array = 0,
        *,
        towers: int = 2,
        image_size: int = 224,
        classes: int = 1000,
        widths: Sequence[int] = (96, 256, 384, 384, 256, 4096, 4096),
        deviations: Sequence[float] = (0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01),
        biases: Sequence[float] = (0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0),
        precision: str = "float32",
        form: Form = "plain",
    ):
        self.towers, self.classes, self.form = towers, classes, form
        self.precision = PRECISIONS[precision]
        rngs, starts = first_rngs(seed), zip(deviations, biases, strict=True)

        def options() -> dict[str, Any]:
            deviation, bias = next(starts)
            start = {"deviation": deviation, "bias": bias, "rngs": rngs}
            return {"towers": towers, "precision": self.precision, "form": form} | start

        n1, n2, n3, n4, n5, n6, n7 = (width // towers for width in widths)  # of each tower
        over = -(image_size - 11) % 4  # a last kernel that overlaps the image's end sees zeros beyond
        side = 1 + (image_size + over - 11) // 4
        for _ in range(3):
            side = pooled(side, 3, 2)
        self.conv1 = Conv(11, 11, 3, n1, stride=4, padding=(0, over), **options())
        self.conv2 = Conv(5, 5, n1, n2, padding=(2, 2), **options())
        self.conv3 = Conv(3, 3, n2 * towers, n3, padding=(1, 1), **options())  # reads all towers
        self.conv4 = Conv(3, 3, n3, n4, padding=(1, 1), **options())
        self.conv5 = Conv(3, 3, n4, n5, padding=(1, 1), **options())
        self.fc6 = Dense(side * side * n5 * towers, n6, **options())
        self.fc7 = Dense(n6 * towers, n7, **options())
        self.fc8 = Dense(n7 * towers, -(-classes // towers), scores=True, **options())

    def __call__(
        self, images: jax.Array, dropout_keys: jax.Array | None = None, tap: Tap = no_tap
    ) -> jax.Array:
        """Scores of images less the training mean; `dropout_keys` [B] while training, None at test."""
        x = self.for_each_tower(images)  # [B, 224, 224, 3] in each tower
        with jax.named_scope("conv1"):
            x = tap("conv1", self.lrn(relu(self.conv1(x))))  # [B, 55, 55, 48]
            x = tap("pool1", self.pool(x))  # [B, 27, 27, 48]
        with jax.named_scope("conv2"):
            x = tap("conv2", self.lrn(relu(self.conv2(x))))  # [B, 27, 27, 128]
            x = tap("pool2", self.pool(x))  # [B, 13, 13, 128]
        with jax.named_scope("conv3"):
            x = tap("conv3", relu(self.conv3(self.cross(x))))  # [B, 13, 13, 192] of [B, 13, 13, 256]
        with jax.named_scope("conv4"):
            x = tap("conv4", relu(self.conv4(x)))  # [B, 13, 13, 192]
        with jax.named_scope("conv5"):
            x = tap("conv5", relu(self.conv5(x)))  # [B, 13, 13, 128]
            x = tap("pool5", self.pool(x))  # [B, 6, 6, 128]
        with jax.named_scope("fc6"):
            x = tap("fc6", relu(self.fc6(self.cross(x))))  # [B, 2048] of [B, 6, 6, 256]
            x = self.dropout(x, dropout_keys, 6)
        with jax.named_scope("fc7"):
            x = tap("fc7", relu(self.fc7(self.cross(x))))  # [B, 2048] of [B, 4096]
            x = self.dropout(x, dropout_keys, 7)
        with jax.named_scope("fc8"):
            x = tap("fc8", self.fc8(self.cross(x)))  # [B, 500] of [B, 4096]
        with jax.named_scope("scores"):
            return self.join(x)[:, : self.classes]  # [B, 1000]

    def for_each_tower(self, images: jax.Array) -> Towers:
        """The same images for all the towers that are here."""
        return [images.astype(self.precision.activations)] * self.fc8.kernel.shape[0]

    def lrn(self, x: Towers) -> Towers:
        """Section 3.3."""
        return [local_response_norm(t, 5, k=2.0, alpha=1e-4, beta=0.75, form=self.form) for t in x]

    def pool(self, x: Towers) -> Towers:
        """Section 3.4."""
        return [max_pool(t, window=3, stride=2, form=self.form) for t in x]

    def dropout(self, x: Towers, keys: jax.Array | None, layer: int) -> Towers:
        """Section 4.2."""
        return dropout(x, 0.5, keys, layer, self.towers)

    def cross(self, x: Towers) -> Towers:
        return cross(x, self.towers)

    def join(self, x: Towers) -> jax.Array:
        return join(x, self.towers)


def relu(x: Towers) -> Towers:
    return [jax.nn.relu(t) for t in x]
