"""Augmentation of packed pictures (sections 2 and 4.1), on the device, one picture at a time.

Values stay on the 0-255 scale, which weights drawn from N(0, 0.01) assume.
"""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.typing import ArrayLike

from alexnet_jax.config.fields import AugmentConfig


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pixels:
    """Statistics of the training pictures: their mean, and how the colours of their pixels vary."""

    mean: jax.Array  # f32[S, S, 3]
    colour_noise: jax.Array  # f32[3, 3]: column i is the i-th principal component times its deviation


def pixels(mean: np.ndarray, values: np.ndarray, vectors: np.ndarray, config: AugmentConfig) -> Pixels:
    """`Pixels` from the mean picture of a training split and the eigenvectors of its RGB covariance."""
    unit = np.sqrt(values) if config.colour_unit == "root_eigenvalue" else values
    noise: Any = (config.colour_noise * vectors * unit).astype(np.float32)
    whole: Any = mean.astype(np.float32)
    return Pixels(whole, noise)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Colours:
    """The change of each picture's colours, in a batch."""

    shift: jax.Array  # f32[B, 3]
    divisor: jax.Array  # f32[B]


def draw_colours(keys: jax.Array, pixels: Pixels, strength: ArrayLike, config: AugmentConfig) -> Colours:
    """A draw of colour noise for each key, `strength` times as strong as the config says.

    For a whole batch at once, on every device: the last bit of a normal number, and of a product of matrices,
    depends on how many are computed together, and would depend on the mesh.
    """
    draws = jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
    shifts = jnp.dot(draws, pixels.colour_noise.T, precision=lax.Precision.HIGHEST)
    divisor = 1 + strength * config.colour_noise * config.colour_divides
    return Colours(jnp.multiply(strength, shifts), jnp.full(len(keys), divisor, jnp.float32))


def shared(keys: jax.Array, by: int) -> jax.Array:
    """The first key of every `by` that are side by side, for all of them."""
    return keys[jnp.arange(len(keys)) // by * by]


def random_view(
    picture: jax.Array, key: jax.Array, colours: Colours, pixels: Pixels, size: int, config: AugmentConfig
) -> jax.Array:
    """A random crop, perhaps mirrored, less the mean, in shifted colours: f32[size, size, 3]."""
    crop_key, flip_key = jax.random.split(key)
    # 32 places each way at 256 and 224: the paper's factor 2048 = 32 * 32 * 2. The source has 33.
    border = picture.shape[0] - size
    places = max(border + config.last_offset, 1)
    corner = (*jax.random.randint(crop_key, (2,), 0, places), 0)
    window = (size, size, 3)
    view = lax.dynamic_slice(picture, corner, window).astype(jnp.float32)
    if config.mean == "under_crop":
        view -= lax.dynamic_slice(pixels.mean, corner, window)
    if config.flip:
        view = jnp.where(jax.random.bernoulli(flip_key), view[:, ::-1], view)
    if config.mean == "centre":  # which is not mirrored with the picture
        view -= central(pixels.mean, size)
    view += colours.shift[None, None]
    # "so that the scale of training data doesn't become too different", says the source, which divides.
    return view / colours.divisor if config.colour_divides else view


def fixed_views(
    pictures: jax.Array, pixels: Pixels, size: int, count: int, config: AugmentConfig
) -> jax.Array:
    """f32[count, B, ...]: the centre view; the source's nine for CIFAR-10, a 3 x 3 grid; or the paper's ten:
    corners, centre, and their mirror images.
    """
    border = pictures.shape[1] - size
    middle = border // 2
    corners = [(middle, middle)]
    if count == 9:
        corners = [(top, left) for top in (0, middle, border) for left in (0, middle, border)]
    if count == 10:
        corners = [(0, 0), (0, border), (middle, middle), (border, 0), (border, border)]

    def view(top: int, left: int) -> jax.Array:
        window = pictures[:, top : top + size, left : left + size].astype(jnp.float32)
        return window - pixels.mean[None, top : top + size, left : left + size] if follows else window

    follows = config.mean == "under_crop"
    views = [view(*corner) for corner in corners]
    if count == 10:
        views += [view[:, :, ::-1] for view in views]
    return jnp.stack(views) if follows else jnp.stack(views) - central(pixels.mean, size)[None, None]


def central(image: jax.Array, size: int) -> jax.Array:
    """The middle of an image [S, S, 3]."""
    first = (image.shape[0] - size) // 2
    return image[first : first + size, first : first + size]
