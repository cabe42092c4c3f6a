"""The operations that only XLA:CPU needs; on accelerators the plain ones run.

The network's operations come in three forms, one of which a network has for good:

- `plain`: JAX's own operations and gradients. Everything that JAX does to a function works on them.
- `fast`: LRN and pooling with gradients written by hand, several times faster on any backend. They have no
  forward mode: `jax.jvp` and Hessian-vector products need the plain form.
- `cpu`: the same, and products and sums of biases too, arranged as XLA:CPU runs them best.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, TypeVar

import jax
from jax import lax
from jax import numpy as jnp
from jax.sharding import Mesh
from jax.typing import DTypeLike

Form = Literal["plain", "fast", "cpu"]
Tree = TypeVar("Tree")


def form_on(platform: str) -> Form:
    """The fastest form on a platform."""
    return "cpu" if platform == "cpu" else "fast"


def compile_on(mesh: Mesh, function: Callable[..., Any], **options: Any) -> Any:
    """`jax.jit` with the compiler options of the mesh's platform."""
    return jax.jit(function, compiler_options=compiler_options(platform_of(mesh)), **options)


def platform_of(mesh: Mesh) -> str:
    return mesh.devices.flat[0].platform


def compiler_options(platform: str) -> dict[str, str | int]:
    """XLA options for a platform.

    XLA:CPU sends float32 convolutions to YNNPACK, whose weight gradients run 5-16 times slower than the
    convolutions that it replaced; matrix products are better off with it.
    """
    name = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
    return cpu_options(platform, xla_cpu_experimental_ynn_fusion_type=name)


def cpu_options(platform: str, **options: str | int) -> dict[str, str | int]:
    """XLA options for the CPU; none on other platforms, or where this jaxlib does not know them all."""
    return options if platform == "cpu" and _known(**options) else {}


@functools.cache
def _known(**options: str | int) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except Exception:  # jaxlib raises its own type, and it has changed: any failure means "unknown".
        return False
    return True


def simulate_cpu_devices(count: int) -> None:
    """Makes this process see `count` CPU devices; only before the first use of any device.

    XLA:CPU ends a process in which one device has waited a minute for another. But the machine may only be
    very busy: ten are allowed, where this XLA has the flag.
    """
    patience = "--xla_cpu_collective_call_terminate_timeout_seconds"
    flags = os.environ.get("XLA_FLAGS", "")
    if jax.__version_info__ < (0, 13) and patience not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {patience}=600".strip()
    jax.config.update("jax_num_cpu_devices", count)  # raises where devices are in use
    jax.config.update("jax_platforms", "cpu")


@contextlib.contextmanager
def reverse_mode_only() -> Iterator[None]:
    """Adds to JAX's error about forward mode which form has it."""
    try:
        yield
    except TypeError as error:
        error.add_note('the fast forms have gradients of their own: for forward mode take form="plain"')
        raise


def barrier(tree: Tree, form: Form) -> Tree:
    """Stores arrays once on the CPU, so that not every reader computes them anew."""
    return lax.optimization_barrier(tree) if form == "cpu" else tree


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def cpu_product(
    x: jax.Array, kernel: jax.Array, precision: lax.Precision | None, out: DTypeLike
) -> jax.Array:
    """x [T, B, I] times kernel [T, I, O], tower by tower.

    The kernels are large and the batch is small. XLA:CPU reads a kernel as it lies where the batch comes
    last, and otherwise packs it anew in each pass (measured: twice the time, forward and backward).
    """
    columns = lax.optimization_barrier(jnp.swapaxes(x, 1, 2))
    return jnp.einsum("tib,tio->tbo", columns, kernel, precision=precision, preferred_element_type=out)


def _product_forward(
    x: jax.Array, kernel: jax.Array, precision: lax.Precision | None, out: DTypeLike
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return cpu_product(x, kernel, precision, out), (x, kernel)


def _product_backward(
    precision: lax.Precision | None, _out: DTypeLike, kept: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    g = g.astype(x.dtype)
    columns = lax.optimization_barrier(jnp.einsum("tio,tbo->tib", kernel, g, precision=precision))
    return jnp.swapaxes(columns, 1, 2), jnp.einsum("tbi,tbo->tio", x, g, precision=precision)


cpu_product.defvjp(_product_forward, _product_backward)


def add_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
    """y [..., maps] plus one number a map, or one for each place of it, in the type of biases: float32."""
    return (y.astype(bias.dtype) + bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)).astype(y.dtype)


@jax.custom_vjp
def cpu_add_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
    """The same, with sums of gradients as XLA:CPU takes them faster."""
    return add_bias(y, bias)


def _add_bias_forward(y: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    return cpu_add_bias(y, bias), bias


def _add_bias_backward(bias: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sums by multiplying with ones: XLA:CPU sums over leading axes several times slower, and less exactly.

    Eight rows of them, as for one row it takes neither its fast path nor its order of summation.
    """
    rows = g.reshape(-1, bias.size)
    ones = lax.optimization_barrier(jnp.ones((8, rows.shape[0]), g.dtype))
    sums = jnp.dot(ones, rows, precision=lax.Precision.HIGHEST, preferred_element_type=bias.dtype)
    return g, sums[0].reshape(bias.shape)


cpu_add_bias.defvjp(_add_bias_forward, _add_bias_backward)
