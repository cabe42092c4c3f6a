"""Functions over the mesh: each device runs them on its own towers and rows. The only `shard_map` is here.

An axis with one device is no axis: nothing differs along it and there is nobody to sum with. `spread` takes
such axes out of the specs, `vary` and `total` pass over them, and nobody else asks how long an axis is.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.sharding import Mesh, PartitionSpec

Function = Callable[..., Any]


def spread(body: Function, mesh: Mesh, in_specs: Any, out_specs: Any) -> Function:
    """`body` on every device, for its own parts of the arguments."""

    def used(spec: PartitionSpec) -> PartitionSpec:
        return PartitionSpec(*(axis if axis and mesh.shape[axis] > 1 else None for axis in spec))

    in_specs, out_specs = (
        jax.tree.map(used, specs, is_leaf=lambda x: isinstance(x, PartitionSpec))
        for specs in (in_specs, out_specs)
    )
    return jax.shard_map(body, mesh=mesh, in_specs=in_specs, out_specs=out_specs)


def devices_along(axis: str) -> int:
    """The number of devices along an axis; one outside of `spread`, where nothing is split."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.shape[axis] if axis in mesh.manual_axes else 1


def vary(tree: Any, axis: str) -> Any:
    """Arrays that are equal along an axis, as each device's own: their gradients are summed over the axis."""
    return lax.pcast(tree, axis, to="varying") if devices_along(axis) > 1 else tree


def total(tree: Any, axis: str) -> Any:
    """The sum over all devices along an axis."""
    return lax.psum(tree, axis) if devices_along(axis) > 1 else tree


def mean_over(tree: Any, axis: str) -> Any:
    """The mean over all devices along an axis."""
    return lax.pmean(tree, axis) if devices_along(axis) > 1 else tree
