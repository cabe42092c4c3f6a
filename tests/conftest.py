"""Eight CPU devices, no silent broadcasting, and the configs that tests start from."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import jax
import pytest

from alexnet_jax.config import Config, build
from alexnet_jax.mesh import simulate_cpu_devices
from configs.imagenet import PAPER

simulate_cpu_devices(8)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def paper() -> Config:
    """The full-size network, batches of 8."""
    return build(PAPER | {"train": PAPER["train"] | {"batch_size": 8}})


@pytest.fixture(scope="session")
def narrow() -> Config:
    """A network that compiles in seconds."""
    network = {
        "image_size": 64,
        "classes": 10,
        "conv_widths": (8, 16, 16, 16, 8),
        "fc_widths": (16, 32),
        "weight_deviations": (0.01, 0.03, 0.03, 0.03, 0.03, 0.06, 0.06, 0.03),
    }
    sections = {
        "network": network,
        "data": {"size": 72},
        "train": {"batch_size": 8},
        "evaluation": {"batch_size": 200},
    }
    return build(PAPER | {name: PAPER[name] | changes for name, changes in sections.items()})
