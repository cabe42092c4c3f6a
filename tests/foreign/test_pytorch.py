"""The full-size network against PyTorch's own operations; skipped where PyTorch is not installed.

PyTorch computes in float64. In float32 a unit so near to 0, or to its neighbour in a pool's window, that
rounding decides otherwise changes a gradient by more than rounding: such units are counted, and gradients
compared for the images that have none.
"""

from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from jax import numpy as jnp

from alexnet_jax.network.alexnet import AlexNet
from alexnet_jax.sharding.platform import Form

pytorch = pytest.importorskip("benchmarks.pytorch", reason="PyTorch is not installed: pip install torch")
torch = pytorch.torch
pytestmark = pytest.mark.slow

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
SIDES = {"fc6": 6, "fc7": 1, "fc8": 1}  # of the maps that they read
HALVED = ("fc7", "fc8")  # PyTorch doubles units while training, where we halve them at test
POOLED = ("conv1", "conv2", "conv5")
IMAGES = 4

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def params() -> dict:
    net = jax.jit(lambda: nnx.state(AlexNet(seed=0), nnx.Param))()
    return jax.device_get(nnx.to_pure_dict(net))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 60, (IMAGES, 224, 224, 3)).astype(np.float32)


LABELS = (3, 999, 500, 0)


def in_pytorchs_layout(params: dict) -> Arrays:
    """Weights and biases with the outputs of both towers first, then maps, rows and columns."""
    found = {}
    for name in LAYERS:
        kernel = np.asarray(params[name]["kernel"])
        if name in SIDES:
            kernel = kernel.reshape(2, SIDES[name], SIDES[name], -1, kernel.shape[-1])
        towers, height, width, inputs, outputs = kernel.shape
        weight = kernel.transpose(0, 4, 3, 1, 2).reshape(towers * outputs, inputs, height, width)
        found[f"{name}/weight"] = weight if name not in SIDES else weight.reshape(towers * outputs, -1)
        found[f"{name}/bias"] = np.asarray(params[name]["bias"]).reshape(-1)
    return found


class Twin:
    """PyTorch's network, with the same weights."""

    def __init__(self, params: dict):
        self.network = pytorch.make_network().double().eval()
        kinds = torch.nn.Conv2d | torch.nn.Linear
        layers = [layer for layer in self.network if isinstance(layer, kinds)]
        self.layers = dict(zip(LAYERS, layers, strict=True))
        for name, array in in_pytorchs_layout(params).items():
            own = self.parameter(name)
            assert own.shape == array.shape
            own.data = torch.tensor(array * self.factor(name), dtype=torch.float64)
        self.activations: Arrays = {}  # of the units, before pools, in our layout
        for name, layer in self.layers.items():
            if name != "fc8":
                after = 2 if name in ("conv1", "conv2") else 1  # ReLU, and LRN
                stage = self.network[list(self.network).index(layer) + after]
                stage.register_forward_hook(partial(self.keep, name))

    def keep(self, name: str, _layer: Any, _inputs: Any, output: Any) -> None:
        self.activations[name] = output.detach().numpy()

    def parameter(self, name: str) -> Any:
        layer, kind = name.split("/")
        return getattr(self.layers[layer], kind)

    def factor(self, name: str) -> float:
        layer, kind = name.split("/")
        return 0.5 if layer in HALVED and kind == "weight" else 1.0

    def run(self, images: np.ndarray, labels: Any) -> tuple[float, np.ndarray, Arrays]:
        """The mean loss, scores and gradients."""
        self.network.zero_grad()
        scores = self.network(torch.tensor(images.transpose(0, 3, 1, 2), dtype=torch.float64))
        loss = torch.nn.functional.cross_entropy(scores, torch.tensor(labels))
        loss.backward()
        names = [f"{name}/{kind}" for name in LAYERS for kind in ("weight", "bias")]
        gradients = {name: self.parameter(name).grad.numpy() * self.factor(name) for name in names}
        return loss.item(), scores.detach().numpy(), gradients


@pytest.fixture(scope="module")
def twin(params: dict) -> Twin:
    return Twin(params)


def our_run(precision: str, form: Form) -> Any:
    """A compiled function of (params, images, labels): loss, scores, activations by stage, and gradients."""

    def loss(params: dict, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
        graph = nnx.split(nnx.eval_shape(lambda: AlexNet(precision=precision, form=form)), nnx.Param)[0]
        stages = {}

        def tap(name: str, x: list[jax.Array]) -> list[jax.Array]:
            stages[name] = jnp.concatenate(x, axis=-1)
            return x

        scores = nnx.merge(graph, params)(images, tap=tap)
        picked = jnp.take_along_axis(jax.nn.log_softmax(scores), labels[:, None], axis=1)
        return -jnp.mean(picked), (scores, stages)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def check_close(found: Any, wanted: Any, tolerance: float, what: str) -> float:
    """Differences relative to the largest number."""
    wanted = np.asarray(wanted)
    error = float(np.max(np.abs(np.asarray(found) - wanted)) / np.max(np.abs(wanted)))
    assert error < tolerance, f"{what}: {error:.1e}"
    return error


def check_gradients(found: dict, wanted: Arrays, tolerance: float) -> float:
    errors = [
        check_close(array, wanted[name], tolerance, name) for name, array in in_pytorchs_layout(found).items()
    ]
    return max(errors)


def test_in_float64(params: dict, images: np.ndarray, twin: Twin) -> None:
    loss, scores, gradients = twin.run(images, LABELS)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), params)
        (own_loss, (own_scores, _)), own_gradients = our_run("float64", "plain")(
            wide, np.float64(images), np.array(LABELS)
        )
    check_close(own_loss, loss, 1e-12, "loss")
    check_close(own_scores, scores, 1e-12, "scores")
    check_gradients(own_gradients, gradients, 1e-10)


@pytest.mark.parametrize("form", ["plain", "cpu"])
def test_in_float32(params: dict, images: np.ndarray, twin: Twin, form: Form) -> None:
    run, errors, otherwise = our_run("float32", form), [], []
    for image, label in zip(images, LABELS, strict=True):
        loss, scores, gradients = twin.run(image[None], [label])
        (own_loss, (own_scores, stages)), own_gradients = run(params, image[None], np.array([label]))
        check_close(own_loss, loss, 1e-5, "loss")
        check_close(own_scores, scores, 1e-5, "scores")
        otherwise.append(count_otherwise(jax.device_get(stages), twin.activations))
        if otherwise[-1] == 0:
            errors.append(check_gradients(own_gradients, gradients, 1e-5))
    print(f"units decided otherwise: {otherwise}; largest errors of gradients: {errors}")
    assert errors and max(otherwise) < 10, otherwise


def count_otherwise(stages: Arrays, wanted: Arrays) -> int:
    """Units that are on in one net and off in the other, and pools' windows that choose another unit."""
    count = 0
    for name in LAYERS[:-1]:
        found = stages[name]
        if found.ndim == 4:
            found = found.transpose(0, 3, 1, 2)
        count += np.sum((found > 0) != (wanted[name] > 0))
        if name in POOLED:
            count += np.sum(places(found) != places(wanted[name]))
    return int(count)


def places(maps: np.ndarray) -> np.ndarray:
    """The place in its map of the maximum of each window of a pool."""
    maps = torch.tensor(np.ascontiguousarray(maps))
    return torch.nn.functional.max_pool2d(maps, 3, 2, return_indices=True)[1].numpy()
