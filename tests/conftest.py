"""Eight CPU devices, no silent broadcasting, and the configs that tests start from."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import pytest

from alexnet_jax.config import Config, build
from alexnet_jax.mesh import simulate_cpu_devices
from configs import imagenet, quickstart

simulate_cpu_devices(8)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def paper() -> Config:
    """The full-size network, batches of 8."""
    values = imagenet.get_config().to_dict()
    values["train"]["batch_size"] = 8
    return build(values)


@pytest.fixture(scope="session")
def narrow() -> Config:
    """A network that compiles in seconds."""
    values = quickstart.get_config().to_dict()
    values["network"] |= {"conv_widths": (8, 16, 16, 16, 8), "fc_widths": (16, 32)}
    values["train"]["batch_size"] = 8
    return build(values)
