"""AlexNet in NumPy float64, loop by loop, written from section 3 of the paper and from what its authors ran.

Of our code it reads the names of the config's fields only.
"""

from typing import Any

import numpy as np

from alexnet_jax.config import ConvConfig, NetworkConfig

Array = np.ndarray
ACTIVATIONS = {"relu": lambda x: np.maximum(0, x), "tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x))}


def places(side: int, size: int, stride: int) -> int:
    """1 + ceil((side - size) / stride): windows begin as long as the one before has left something over."""
    return 1 + int(np.ceil((side - size) / stride))


def convolve(x: Array, kernel: Array, bias: Array, conv: ConvConfig) -> Array:
    """x [H, W, C] with one kernel [k, k, C, F] and bias [F], or with one at every place."""
    size, pad = conv.size, conv.padding
    side = places(x.shape[0] + 2 * pad, size, conv.stride)
    end = (side - 1) * conv.stride + size - x.shape[0] - pad
    x = np.pad(x, [(pad, end), (pad, end), (0, 0)])
    out = np.zeros((side, side, kernel.shape[-1]))
    for i, j in np.ndindex(side, side):
        patch = x[i * conv.stride : i * conv.stride + size, j * conv.stride : j * conv.stride + size]
        own = kernel.ndim > 4
        out[i, j] = np.tensordot(patch, kernel[i, j] if own else kernel, 3) + (bias[i, j] if own else bias)
    return out


def normalise(a: Array, n: int, k: float, alpha: float, beta: float) -> Array:
    """Section 3.3, map by map."""
    maps, b = a.shape[-1], np.zeros_like(a)
    for i in range(maps):
        low, high = max(0, i - n // 2), min(maps - 1, i + n // 2)
        b[..., i] = a[..., i] / (k + alpha * (a[..., low : high + 1] ** 2).sum(-1)) ** beta
    return b


def normalise_maps(a: Array, n: int, k: float, alpha: float, beta: float) -> Array:
    """The source's second kind, pixel by pixel: alpha is divided by the n * n pixels of a window."""
    b, r = np.zeros_like(a), n // 2
    for i, j in np.ndindex(*a.shape[:2]):
        seen = a[max(0, i - r) : i + r + 1, max(0, j - r) : j + r + 1]
        b[i, j] = a[i, j] / (k + alpha / (n * n) * (seen**2).sum(axis=(0, 1))) ** beta
    return b


def standardise(a: Array, mean: Array, variance: Array, epsilon: float) -> Array:
    """Batch normalisation at test, map by map."""
    b = np.zeros_like(a)
    for i in range(a.shape[-1]):
        b[..., i] = (a[..., i] - mean[i]) / np.sqrt(variance[i] + epsilon)
    return b


def pool(x: Array, z: int, s: int) -> Array:
    side = places(x.shape[0], z, s)
    out = np.zeros((side, side, x.shape[2]))
    for i, j in np.ndindex(side, side):
        out[i, j] = x[i * s : i * s + z, j * s : j * s + z].max(axis=(0, 1))
    return out


def forward(params: dict[str, Any], image: Array, net: NetworkConfig) -> Array:
    """Class scores of one image [S, S, 3] at test time: hidden outputs are scaled by what dropout keeps."""
    p = {name: {k: np.asarray(v, np.float64) for k, v in layer.items()} for name, layer in params.items()}
    towers, act = range(net.towers), ACTIVATIONS[net.activation]
    x = [image] * net.towers

    def read(name: str) -> list[Array]:
        return [np.concatenate(x, axis=-1)] * net.towers if name in net.crossings else x

    for name, conv in net.convs().items():
        seen = read(name)
        x = [convolve(seen[t], p[name]["kernel"][t], p[name]["bias"][t], conv) for t in towers]
        x = [after_convolution(a, name, net) for a in x]
        if name in net.batch_norm.after:
            norm = p[name.replace("conv", "norm")]
            x = [
                standardise(x[t], norm["mean"][t], norm["variance"][t], net.batch_norm.epsilon)
                for t in towers
            ]
    for name in net.hidden():
        seen = read(name)
        x = [act(seen[t].ravel() @ p[name]["kernel"][t] + p[name]["bias"][t]) for t in towers]
        x = [a * (1 - net.dropout) for a in x]
    seen = read("fc8")
    scores = [seen[t].ravel() @ p["fc8"]["kernel"][t] + p["fc8"]["bias"][t] for t in towers]
    return np.concatenate(scores)[: net.classes]


def after_convolution(a: Array, name: str, net: NetworkConfig) -> Array:
    """A tower's maps, from the sums of a convolution to the input of the next layer."""
    lrn, maps = net.lrn, net.map_norm
    alpha = lrn.alpha / (lrn.size if lrn.alpha_times == "mean" else 1)
    responses = (lrn.size, lrn.k, alpha, lrn.beta)
    if name in lrn.before_activation:
        a = normalise(a, *responses)
    a = ACTIVATIONS[net.activation](a)
    if name in lrn.after_activation:
        a = normalise(a, *responses)
    if name in maps.after:
        a = normalise_maps(a, maps.size, maps.k, maps.alpha, maps.beta)
    if name in net.pool.after:
        a = pool(a, net.pool.window, net.pool.stride)
    return normalise(a, *responses) if name in lrn.after_pool else a
