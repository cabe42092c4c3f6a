"""Functions over the mesh: each device runs them on its own towers and rows. Only here stands `shard_map`."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.sharding import Mesh

from alexnet_jax.learning.augment import Pixels
from alexnet_jax.learning.blocks import copies, sum_of_blocks
from alexnet_jax.learning.metrics import Totals
from alexnet_jax.mesh import DATA, EVERYWHERE, PARAMETERS, TOWER, compiler_options, row_spec

Params = dict[str, dict[str, jax.Array]]
Body = Callable[..., tuple[Totals, Params]]


def over_mesh(body: Body, mesh: Mesh, blocks: int) -> Body:
    """Runs `body(params, averages, pixels, *rows)` on each device's towers and rows, and sums its totals."""
    axes = (TOWER, DATA) if mesh.shape[DATA] > 1 else (TOWER,)

    def at_once(params: Params, averages: Params, pixels: Pixels, *rows: Any) -> tuple[Totals, Params]:
        rows = lax.pcast(rows, TOWER, to="varying")  # every tower sees the same rows
        if DATA in axes:
            params = {name: _cast_over_rows(name, layer) for name, layer in params.items()}
        totals, averages = body(params, averages, pixels, *rows)
        return lax.psum(totals, axes), averages

    def in_blocks(params: Params, averages: Params, pixels: Pixels, *rows: Any) -> tuple[Totals, Params]:
        rows = lax.pcast(rows, TOWER, to="varying")
        here = blocks // mesh.shape[DATA]
        layers = {name: _copies(name, layer, here) for name, layer in params.items()}
        each = [{name: layer[i] for name, layer in layers.items()} for i in range(here)]
        totals = sum_of_blocks(lambda one, *block: body(one, averages, pixels, *block)[0], each, rows)
        return lax.psum(totals, TOWER), averages  # no running ones: a block is not the batch

    def run(params: Params, averages: Params, pixels: Pixels, *rows: Any) -> tuple[Totals, Params]:
        given = (PARAMETERS, PARAMETERS, EVERYWHERE, *(row_spec(mesh) for _ in rows))
        summed = spread(in_blocks if blocks else at_once, mesh, given, (EVERYWHERE, PARAMETERS))
        sums, averages = summed(params, averages, pixels, *rows)
        # After the last crossing every tower has the same scores, and so the same totals.
        return jax.tree.map(lambda x: x / mesh.shape[TOWER], sums), averages

    return run


def spread(body: Callable, mesh: Mesh, given: Any, made: Any) -> Callable:
    """`body` on every device, for arguments that are cut as `given` says; its results are as `made` says."""
    return jax.shard_map(body, mesh=mesh, in_specs=given, out_specs=made)


def _cast_over_rows(name: str, layer: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """A layer's weights for each row of devices; backwards, its gradients are summed in its name."""
    with jax.named_scope(name):
        return lax.pcast(layer, DATA, to="varying")


def _copies(name: str, layer: dict[str, jax.Array], count: int) -> list[dict[str, jax.Array]]:
    """The same for each block of each row."""
    with jax.named_scope(name):
        return copies(layer, count)


def compile_on(mesh: Mesh, step: Callable, **options: Any) -> Callable:
    """`jax.jit` with the options of the mesh's platform."""
    platform = mesh.devices.flat[0].platform
    return jax.jit(step, compiler_options=compiler_options(platform), **options)
