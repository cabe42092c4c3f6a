"""AlexNet in NumPy float64, loop by loop, written from section 3 of the paper and from what its authors ran.

Each layer takes images [B, H, W, C] and returns its outputs and `back`: given the gradient of a loss with
respect to the outputs, that with respect to the inputs. Of our code this file reads the names of the config's
fields only.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from alexnet_jax.config.fields import ConvConfig, NetworkConfig

Array = np.ndarray
Back = Callable[[Array], Array]
BackToWeights = Callable[[Array], tuple[Array, Array, Array]]  # to the inputs, the kernel and the bias
Params = dict[str, dict[str, Array]]
Kept = dict[str, list[Array]]  # by layer and tower: ones for the units that dropout keeps, zeros for others

ACTIVATIONS = {"relu": lambda x: np.maximum(0, x), "tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x))}
SLOPES = {"relu": lambda y: y > 0, "tanh": lambda y: 1 - y**2, "sigmoid": lambda y: y * (1 - y)}  # by outputs


def places(side: int, size: int, stride: int, rounding: str = "up") -> int:
    """1 + ceil((side - size) / stride): windows begin as long as the one before has left something over.

    Rounded down, a last one that does not fit is left out.
    """
    rounded = {"up": np.ceil, "down": np.floor}[rounding]
    return 1 + int(rounded(max(side - size, 0) / stride))


def windows(sides: tuple[int, int], size: int, stride: int) -> Iterator[tuple[int, int, tuple[slice, ...]]]:
    """The place of every window, and the pixels that it sees of all images."""
    for i, j in np.ndindex(sides):
        top, left = i * stride, j * stride
        yield i, j, (slice(None), slice(top, top + size), slice(left, left + size))


def convolve(x: Array, kernel: Array, bias: Array, conv: ConvConfig) -> tuple[Array, BackToWeights]:
    """Convolves with one kernel [k, k, C, F] and bias [F], or with one at every place."""
    size, pad, height = conv.size, conv.padding, x.shape[1]
    side = places(height + 2 * pad, size, conv.stride, conv.rounding)
    end = max(pad, (side - 1) * conv.stride + size - height - pad)
    x = np.pad(x, [(0, 0), (pad, end), (pad, end), (0, 0)])
    out = np.zeros((len(x), side, side, kernel.shape[-1]))
    for i, j, seen in windows((side, side), size, conv.stride):
        own = (i, j) if kernel.ndim > 4 else ()
        out[:, i, j] = np.tensordot(x[seen], kernel[own], 3) + bias[own]

    def back(g: Array) -> tuple[Array, Array, Array]:
        dx, dkernel, dbias = np.zeros_like(x), np.zeros_like(kernel), np.zeros_like(bias)
        for i, j, seen in windows((side, side), size, conv.stride):
            own = (i, j) if kernel.ndim > 4 else ()
            dx[seen] += np.tensordot(g[:, i, j], kernel[own], (1, 3))
            dkernel[own] += np.tensordot(x[seen], g[:, i, j], (0, 0))
            dbias[own] += g[:, i, j].sum(0)
        return dx[:, pad : pad + height, pad : pad + height], dkernel, dbias

    return out, back


def multiply(x: Array, kernel: Array, bias: Array) -> tuple[Array, BackToWeights]:
    """A fully connected layer over all that there is of an image."""
    flat = x.reshape(len(x), -1)

    def back(g: Array) -> tuple[Array, Array, Array]:
        return (g @ kernel.T).reshape(x.shape), flat.T @ g, g.sum(0)

    return flat @ kernel + bias, back


def activate(x: Array, kind: str) -> tuple[Array, Back]:
    out = ACTIVATIONS[kind](x)
    return out, lambda g: g * SLOPES[kind](out)


def normalise(a: Array, n: int, k: float, alpha: float, beta: float) -> tuple[Array, Back]:
    """Section 3.3, map by map."""
    r = n // 2
    seen = [((..., slice(i, i + 1)), (..., slice(max(0, i - r), i + r + 1))) for i in range(a.shape[-1])]
    return divide(a, seen, (-1,), k, alpha, beta)


def normalise_maps(a: Array, n: int, k: float, alpha: float, beta: float) -> tuple[Array, Back]:
    """The source's second kind, pixel by pixel: alpha is divided by the n * n pixels of a window."""
    r, every = n // 2, slice(None)
    seen = [
        (
            (every, slice(i, i + 1), slice(j, j + 1)),
            (every, slice(max(0, i - r), i + r + 1), slice(max(0, j - r), j + r + 1)),
        )
        for i, j in np.ndindex(a.shape[1:3])
    ]
    return divide(a, seen, (1, 2), k, alpha / (n * n), beta)


def divide(
    a: Array, seen: list[tuple], axes: tuple[int, ...], k: float, alpha: float, beta: float
) -> tuple[Array, Back]:
    """b_i = a_i d_i^-beta, d_i = k + alpha * the sum of a_j^2 over what i has `seen`.

    So db_i / da_j = -2 alpha beta a_i a_j d_i^(-beta - 1) for these j, and d_i^-beta more where j is i.
    """
    d = np.zeros_like(a)
    for i, window in seen:
        d[i] = k + alpha * (a[window] ** 2).sum(axes, keepdims=True)

    def back(g: Array) -> Array:
        da = g * d**-beta
        for i, window in seen:
            da[window] -= g[i] * 2 * alpha * beta * a[i] * a[window] * d[i] ** (-beta - 1)
        return da

    return a * d**-beta, back


def pool(x: Array, z: int, s: int, rounding: str = "up") -> tuple[Array, Back]:
    """Max pooling; of equal maxima the first is taken, row by row."""
    sides = places(x.shape[1], z, s, rounding), places(x.shape[2], z, s, rounding)
    out = np.zeros((len(x), *sides, x.shape[-1]))
    for i, j, seen in windows(sides, z, s):
        out[:, i, j] = x[seen].max(axis=(1, 2))

    def back(g: Array) -> Array:
        dx = np.zeros_like(x)
        for i, j, seen in windows(sides, z, s):
            pixels = x[seen].reshape(len(x), -1, x.shape[-1])
            first = np.arange(pixels.shape[1])[None, :, None] == pixels.argmax(1)[:, None]
            dx[seen] += (first * g[:, None, i, j]).reshape(x[seen].shape)
        return dx

    return out, back


def average(x: Array, z: int, s: int, rounding: str = "up") -> tuple[Array, Back]:
    """Average pooling over the pixels that a window has."""
    sides = places(x.shape[1], z, s, rounding), places(x.shape[2], z, s, rounding)
    out = np.zeros((len(x), *sides, x.shape[-1]))
    for i, j, seen in windows(sides, z, s):
        out[:, i, j] = x[seen].mean(axis=(1, 2))

    def back(g: Array) -> Array:
        dx = np.zeros_like(x)
        for i, j, seen in windows(sides, z, s):
            dx[seen] += g[:, i, j, None, None] / x[0][seen[1:]][..., 0].size
        return dx

    return out, back


class Pass:
    """A pass through the network: what each tower holds, and the way back."""

    def __init__(self, params: Params, images: Array, net: NetworkConfig):
        self.params, self.net = params, net
        self.x, self.backs = [images] * net.towers, []
        self.gradients: Params = {}

    def through(self, layer: Callable, *arguments: Any) -> None:
        """A layer without weights, in each tower."""
        self.x, backs = zip(*(layer(x, *arguments) for x in self.x), strict=True)
        self.backs.append(lambda g: [back(own) for back, own in zip(backs, g, strict=True)])

    def drop(self, kept: Sequence[Array | float]) -> None:
        """Section 4.2, with what dropout keeps of each tower."""
        self.x = [x * own for x, own in zip(self.x, kept, strict=True)]
        self.backs.append(lambda g: [dx * own for dx, own in zip(g, kept, strict=True)])

    def standardise(self, mean: Array, variance: Array, epsilon: float) -> None:
        """Batch normalisation at test, by the averages that each tower has of its maps."""
        factors = 1 / np.sqrt(variance + epsilon)
        self.x = [(x - own) * factor for x, own, factor in zip(self.x, mean, factors, strict=True)]
        self.backs.append(lambda g: [dx * factor for dx, factor in zip(g, factors, strict=True)])

    def weigh(self, name: str, layer: Callable, *arguments: Any) -> None:
        """A layer with weights, which each tower has of its own."""
        if name in self.net.crossings:
            self.cross()
        own = zip(self.x, self.params[name]["kernel"], self.params[name]["bias"], strict=True)
        self.x, backs = zip(*(layer(*parts, *arguments) for parts in own), strict=True)

        def back(g: list[Array]) -> tuple[Array, ...]:
            x, kernels, biases = zip(*(back(own) for back, own in zip(backs, g, strict=True)), strict=True)
            self.gradients[name] = {"kernel": np.stack(kernels), "bias": np.stack(biases)}
            return x

        self.backs.append(back)

    def jointly(self, layer: Callable, *arguments: Any) -> None:
        """A layer without weights over the maps of all towers, each of which keeps its own."""
        towers = len(self.x)
        out, back = layer(np.concatenate(self.x, axis=-1), *arguments)
        self.x = np.split(out, towers, axis=-1)
        self.backs.append(lambda g: np.split(back(np.concatenate(g, axis=-1)), towers, axis=-1))

    def cross(self) -> None:
        """Every tower reads the maps of all, and all hand gradients back to their owner."""
        towers = len(self.x)
        self.x = [np.concatenate(self.x, axis=-1)] * towers
        self.backs.append(lambda g: np.split(sum(g), towers, axis=-1))

    def back(self, g: list[Array]) -> Params:
        """The gradient to all weights, from that to what each tower holds."""
        for back in reversed(self.backs):
            g = back(g)
        return self.gradients


def scores(params: Params, images: Array, net: NetworkConfig, kept: Kept) -> tuple[Array, Callable]:
    """Class scores [B, classes] of images [B, S, S, 3]; `back` leads to the gradient of all parameters."""
    run = Pass(params, images, net)
    for name, conv in net.convs().items():
        run.weigh(name, convolve, conv)
        for operation in conv.then:
            follow(run, operation, params.get(name.replace("conv", "norm"), {}), net)
    for name in net.hidden():
        run.weigh(name, multiply)
        run.through(activate, net.activation)
        run.drop(kept[name])
    run.weigh("fc8", multiply)
    out = np.concatenate(run.x, axis=-1)
    beyond = out.shape[1] - net.classes  # outputs that are there because towers have equally many

    def back(g: Array) -> Params:
        return run.back(np.split(np.pad(g, [(0, 0), (0, beyond)]), net.towers, axis=-1))

    return out[:, : net.classes], back


def follow(run: Pass, operation: str, norm: dict[str, Array], net: NetworkConfig) -> None:
    """One operation after a convolution; `norm` has the averages of its batch normalisation."""
    lrn, maps, window = net.lrn, net.map_norm, (net.pool.window, net.pool.stride, net.pool.rounding)
    if operation == "activation":
        run.through(activate, net.activation)
    elif operation == "lrn":
        alpha = lrn.alpha / (lrn.size if lrn.alpha_times == "mean" else 1)
        among = run.jointly if lrn.over == "all" else run.through
        among(normalise, lrn.size, lrn.k, alpha, lrn.beta)
    elif operation == "map_norm":
        run.through(normalise_maps, maps.size, maps.k, maps.alpha, maps.beta)
    elif operation == "batch_norm":
        run.standardise(norm["mean"], norm["variance"], net.batch_norm.epsilon)
    else:
        run.through({"max_pool": pool, "average_pool": average}[operation], *window)


def forward(params: dict[str, Any], image: Array, net: NetworkConfig) -> Array:
    """Class scores of one image [S, S, 3] at test time: hidden outputs are scaled by what dropout keeps."""
    p = {name: {k: np.asarray(v, np.float64) for k, v in layer.items()} for name, layer in params.items()}
    kept = dict.fromkeys(net.hidden(), [1 - net.dropout] * net.towers)
    return scores(p, image[None], net, kept)[0][0]
