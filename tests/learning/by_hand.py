"""Training in NumPy float64, written from sections 4 and 5 of the paper and from what its authors ran.

Only random numbers are JAX's, from the keys of the design: they depend on the seed, the step and the place in
the batch, and those of dropout on the layer and the tower.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from alexnet_jax.config.fields import NetworkConfig
from tests.network.reference import Array, Kept, Params, scores

TRAINING = 1  # what the key of a seed is folded with for all that training draws


@dataclass(frozen=True)
class Recipe:
    """The recipes of the text and of the authors' code."""

    size: int  # of a crop
    share: int  # so many pictures, side by side, have one crop and one flip
    last_place: int  # where a crop begins at most
    mean_follows: bool  # the crop: what lies under it is taken off, and not always the mean's centre
    divides: bool  # by 1.1, while there is noise


@dataclass(frozen=True)
class Moment:
    """When a step is taken, and what the rates have come to by then."""

    epoch: float
    errors: tuple[float, ...]  # of the validations so far
    weights: float
    biases: float
    conv1: tuple[float, float]  # of its weights and biases
    noise: float

    def rates(self, layer: str) -> dict[str, float]:
        pair = self.conv1 if layer == "conv1" else (self.weights, self.biases)
        return dict(zip(("kernel", "bias"), pair, strict=True))


@dataclass(frozen=True)
class Chance:
    """The random draws of one picture in one step."""

    corner: Array
    flip: bool
    normals: Array
    kept: Kept

    @classmethod
    def draw(cls, seed: int, step: int, place: int, recipe: Recipe, net: NetworkConfig) -> "Chance":
        """Draws with numbers of JAX, from the keys of the design."""
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), TRAINING), step)
        view, colours, dropout = jax.random.split(jax.random.fold_in(key, place), 3)
        corner, flip = jax.random.split(view)

        def kept(layer: int, tower: int, units: int) -> jax.Array:
            key = jax.random.fold_in(jax.random.fold_in(dropout, layer), tower)
            return jax.random.bernoulli(key, 1 - net.dropout, (units,))

        return cls(
            np.asarray(jax.random.randint(corner, (2,), 0, recipe.last_place + 1)),
            bool(jax.random.bernoulli(flip)),
            np.asarray(jax.random.normal(colours, (3,))),
            {
                name: [
                    np.asarray(kept(int(name[-1]), t, layer.width // net.towers)) for t in range(net.towers)
                ]
                for name, layer in net.hidden().items()
            },
        )


@dataclass(frozen=True)
class Moved:
    """The result of a step."""

    loss: float
    gradients: Params
    velocity: Params
    params: Params


def views(
    pictures: Array, chances: Sequence[Chance], looks: tuple[Array, Array], noise: float, recipe: Recipe
) -> Array:
    """Section 4.1: crops and flips less the mean, their colours shifted along the principal components."""
    mean, covariance = looks
    values, components = np.linalg.eigh(covariance)
    out = []
    for i, (picture, own) in enumerate(zip(pictures, chances, strict=True)):
        first = chances[i // recipe.share * recipe.share]
        seen = window(picture, *first.corner, recipe.size)
        below = np.zeros(())
        if recipe.mean_follows:
            seen = seen - window(mean, *first.corner, recipe.size)
        else:  # the mean's centre, which is never mirrored
            middle = (len(picture) - recipe.size) // 2
            below = window(mean, middle, middle, recipe.size)
        seen = (seen[:, ::-1] if first.flip else seen) - below
        seen = seen + components @ (noise * np.sqrt(values) * own.normals)
        out.append(seen / (1 + noise) if recipe.divides else seen)
    return np.stack(out)


def window(picture: Array, top: int, left: int, size: int) -> Array:
    return picture[top : top + size, left : left + size]


def regress(z: Array, labels: Array) -> tuple[float, Array]:
    """Multinomial logistic regression: the mean loss of a batch, and its gradient to the scores."""
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    truth = np.eye(z.shape[1])[labels]
    return float(-np.log((p * truth).sum(axis=1)).mean()), (p - truth) / len(z)


def update(params: Params, velocity: Params, gradients: Params, moment: Moment) -> tuple[Params, Params]:
    """Section 5: v <- 0.9 v - 0.0005 rate w - rate g, w <- w + v; biases do not decay."""
    w, v = {}, {}
    for name in params:
        w[name], v[name] = {}, {}
        for kind, rate in moment.rates(name).items():
            old, decay = params[name][kind], 0.0005 if kind == "kernel" else 0
            v[name][kind] = 0.9 * velocity[name][kind] - decay * rate * old - rate * gradients[name][kind]
            w[name][kind] = old + v[name][kind]
    return w, v


def train(
    params: Params,
    batches: Sequence[tuple[Array, Array]],
    moments: Sequence[Moment],
    looks: tuple[Array, Array],
    net: NetworkConfig,
    recipe: Recipe,
    seed: int,
) -> Iterator[Moved]:
    """A step on each batch of pictures and labels; `looks` are their mean and the covariance of colours."""
    velocity = jax.tree.map(np.zeros_like, params)
    for step, ((pictures, labels), moment) in enumerate(zip(batches, moments, strict=True)):
        chances = [Chance.draw(seed, step, place, recipe, net) for place in range(len(pictures))]
        images = views(pictures, chances, looks, moment.noise, recipe)
        kept = jax.tree.map(lambda *own: np.stack(own), *(chance.kept for chance in chances))
        z, back = scores(params, images, net, kept)
        loss, g = regress(z, labels)
        gradients = back(g)
        params, velocity = update(params, velocity, gradients, moment)
        yield Moved(loss, gradients, velocity, params)
