"""AlexNet as one calls it, and that the two classes of networks are one where both can be."""

import dataclasses
import inspect
import subprocess
import sys
from collections.abc import Callable

import jax
import numpy as np
import pytest
from flax import nnx

from alexnet_jax.config.fields import Config
from alexnet_jax.network import variants
from alexnet_jax.network.alexnet import AlexNet
from alexnet_jax.planning.compiling import lower_step
from alexnet_jax.sharding.mesh import make_mesh
from tests.commands.running import ROOT
from tests.learning.steps import Trainer, first_state
from tests.network import reference

FIVE_LINES = """
import jax
from alexnet_jax import AlexNet
net = AlexNet(seed=0)
scores = net(jax.numpy.zeros((2, 224, 224, 3)))
print(scores.shape)
"""
COUNTED = """
from flax import nnx
print(sum(x.size for x in jax.tree.leaves(nnx.state(net, nnx.Param))))
import sys
print([name for name in ("tensorflow", "clu", "ml_collections") if name in sys.modules])
"""


@pytest.mark.slow
def test_five_lines() -> None:
    """In a fresh interpreter, without a mesh, a config file and what those bring along."""
    command = [sys.executable, "-c", FIVE_LINES + COUNTED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(2, 1000)", "60965224", "[]"]


def test_its_defaults_are_the_papers(paper: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "AlexNet", lambda seed, **given: {"seed": seed, **given})
    given = variants.make_network(paper.network, 0)
    parameters = inspect.signature(AlexNet.__init__).parameters
    found = {name: parameter.default for name, parameter in parameters.items() if name != "self"}
    assert {name: tuple(x) if isinstance(x, list) else x for name, x in given.items()} == found


def test_scores_outside_of_a_mesh(narrow: Config) -> None:
    """Scores with no mesh and no config, of other sizes, equal NumPy's."""
    config = dataclasses.replace(narrow.network, towers=4, image_size=66, classes=9)
    widths = [layer.width for layer in (config.convs() | config.hidden()).values()]
    sizes = {"towers": 4, "image_size": 66, "classes": 9, "widths": widths}
    images = np.random.default_rng(0).normal(0, 60, (2, 66, 66, 3)).astype(np.float32)

    @jax.jit
    def made_and_called() -> tuple[dict, jax.Array]:
        net = AlexNet(3, **sizes, deviations=(0.01, *(0.2,) * 4, *(0.3,) * 3))
        return nnx.to_pure_dict(nnx.state(net, nnx.Param)), net(images)

    params, found = jax.device_get(made_and_called())
    for image, scores in zip(images, found, strict=True):
        wanted = reference.forward(params, np.float64(image), config)
        np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.slow
def test_the_first_weights_of_a_run(narrow: Config) -> None:
    """From the same seed the same, but for rounding."""
    layers = narrow.network.layers().values()
    widths = [layer.width for layer in (narrow.network.convs() | narrow.network.hidden()).values()]
    deviations = [layer.deviation for layer in layers]

    @jax.jit
    def weights() -> dict:
        net = AlexNet(narrow.seed, image_size=64, classes=10, widths=widths, deviations=deviations)
        return nnx.to_pure_dict(nnx.state(net, nnx.Param))

    found, wanted = weights(), first_state(narrow).params
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), found, wanted)


@pytest.fixture
def as_variants(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called, every network is a variant net."""
    return lambda: monkeypatch.setattr(variants, "is_alexnet", lambda _: False)


@pytest.mark.parametrize(
    "shape", [*(pytest.param(one, marks=pytest.mark.slow) for one in ((1, 1), (1, 2), (4, 2))), (2, 2)]
)
def test_the_same_program(paper: Config, shape: tuple[int, int], as_variants: Callable[[], None]) -> None:
    """At full size, what the compiler is given of a step: AlexNet or the variant net, not a line differs."""
    program = lower_step(paper, make_mesh(*shape)).as_text()
    as_variants()
    assert lower_step(paper, make_mesh(*shape)).as_text() == program


@pytest.mark.slow
def test_the_same_bits(narrow: Config, as_variants: Callable[[], None]) -> None:
    """Losses, and every parameter and velocity after each of three steps."""

    def run() -> dict:
        return Trainer(narrow, make_mesh(1, 2)).run([0.01] * 3, first_state(narrow))

    alexnet = run()
    as_variants()
    jax.tree.map(np.testing.assert_array_equal, run(), alexnet)
