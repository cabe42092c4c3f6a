"""Options with which programs are compiled in less time."""

import functools

import jax
import pytest

from alexnet_jax.sharding import platform
from alexnet_jax.sharding.platform import compiler_options

PLAIN = {"xla_cpu_use_fusion_emitters": False}  # twice as fast to compile


def optimise(monkeypatch: pytest.MonkeyPatch, level: int) -> None:
    options = lower_options(level)
    monkeypatch.setattr(platform, "compiler_options", lambda name: compiler_options(name) | options)


def lower_options(level: int) -> dict[str, str | int]:
    """Options of XLA's compiler for the CPU, with which it does less."""
    return (PLAIN if plain_is_known() else {}) | {"xla_backend_optimization_level": level}


@functools.cache
def plain_is_known() -> bool:
    """Whether this jaxlib has the option."""
    try:
        jax.jit(lambda: 0, compiler_options=PLAIN).lower().compile()
    except Exception:  # jaxlib raises its own type, and it has changed
        return False
    return True
