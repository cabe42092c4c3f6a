"""AlexNet (Krizhevsky, Sutskever and Hinton, 2012) in JAX: the paper's two GPUs are a mesh axis.

from alexnet_jax import AlexNet

scores = AlexNet(seed=0)(images)  # [B, 1000] of [B, 224, 224, 3]
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """`AlexNet` on demand: commands set up JAX's environment before they import it."""
    if name == "AlexNet":
        from alexnet_jax.network.alexnet import AlexNet

        return AlexNet
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
