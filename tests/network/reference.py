"""AlexNet in NumPy float64, loop by loop, written from section 3 of the paper."""

from typing import Any

import numpy as np

Array = np.ndarray


def convolve(x: Array, kernel: Array, bias: Array, stride: int, before: int, after: int) -> Array:
    """x [H, W, C] with kernel [k, k, C, F]."""
    x = np.pad(x, [(before, after), (before, after), (0, 0)])
    size = kernel.shape[0]
    side = (x.shape[0] - size) // stride + 1
    out = np.zeros((side, side, kernel.shape[3]))
    for i in range(side):
        for j in range(side):
            patch = x[i * stride : i * stride + size, j * stride : j * stride + size]
            out[i, j] = np.tensordot(patch, kernel, 3) + bias
    return out


def normalise(a: Array, n: int = 5, k: float = 2, alpha: float = 1e-4, beta: float = 0.75) -> Array:
    """Section 3.3, map by map."""
    maps, b = a.shape[-1], np.zeros_like(a)
    for i in range(maps):
        low, high = max(0, i - n // 2), min(maps - 1, i + n // 2)
        b[..., i] = a[..., i] / (k + alpha * (a[..., low : high + 1] ** 2).sum(-1)) ** beta
    return b


def pool(x: Array, z: int = 3, s: int = 2) -> Array:
    side = (x.shape[0] - z) // s + 1
    out = np.zeros((side, side, x.shape[2]))
    for i in range(side):
        for j in range(side):
            out[i, j] = x[i * s : i * s + z, j * s : j * s + z].max(axis=(0, 1))
    return out


def forward(params: dict[str, Any], image: Array, towers: int, padding: int, classes: int) -> Array:
    """Class scores of one image [S, S, 3] at test time: hidden outputs are halved."""
    p = {name: {k: np.asarray(v, np.float64) for k, v in layer.items()} for name, layer in params.items()}

    def conv(name: str, inputs: list[Array], stride: int = 1, before: int = 0, after: int = 0) -> list[Array]:
        kernel, bias = p[name]["kernel"], p[name]["bias"]
        return [
            np.maximum(0, convolve(inputs[t], kernel[t], bias[t], stride, before, after))
            for t in range(towers)
        ]

    def dense(name: str, inputs: Array) -> list[Array]:
        return [inputs.ravel() @ p[name]["kernel"][t] + p[name]["bias"][t] for t in range(towers)]

    def both(x: list[Array]) -> Array:
        return np.concatenate(x, axis=-1)

    x = [pool(normalise(a)) for a in conv("conv1", [image] * towers, 4, 0, padding)]
    x = [pool(normalise(a)) for a in conv("conv2", x, 1, 2, 2)]
    x = conv("conv3", [both(x)] * towers, 1, 1, 1)
    x = conv("conv4", x, 1, 1, 1)
    x = [pool(a) for a in conv("conv5", x, 1, 1, 1)]
    x = [np.maximum(0, a) * 0.5 for a in dense("fc6", both(x))]
    x = [np.maximum(0, a) * 0.5 for a in dense("fc7", both(x))]
    return both(dense("fc8", both(x)))[:classes]
