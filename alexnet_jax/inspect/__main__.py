"""Prints what a run holds: python -m alexnet_jax.inspect --workdir=runs/quickstart --mesh=4x2 parameters

Without a word, its parameters, their shardings, the communication of its step, and its responses to pictures.
"""

from collections.abc import Callable

import jax
from absl import flags

from alexnet_jax import arguments, cli
from alexnet_jax.data.packed import refuse_early
from alexnet_jax.errors import ConfigError
from alexnet_jax.inspect import load
from alexnet_jax.inspect.layout import drawing
from alexnet_jax.inspect.parameters import table
from alexnet_jax.inspect.stages import responses
from alexnet_jax.inspect.traffic import communication
from alexnet_jax.sharding.mesh import DATA, TOWER
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.text import nearest
from alexnet_jax.trained.opened import TrainedRun

WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a run.")
STEP = flags.DEFINE_integer("step", None, "The checkpoint; the newest if not given.")
MESH = flags.DEFINE_string("mesh", None, "Data x tower, as in 4x2; the run's own if not given.")


def main(what: str = "") -> None:
    """Shows one thing, or all of them."""
    if what and what not in SHOWN:
        near, named = nearest(what, SHOWN), ", ".join(SHOWN)
        raise ConfigError(f"there is nothing called {what!r} to look at; the nearest is {near}, of {named}")
    folder = Workdir(arguments.require(WORKDIR, "runs/quickstart"))
    shape = arguments.read_mesh(MESH.value) if MESH.value is not None else None
    if what == "responses":
        config = folder.read_config()
        refuse_early(config.data, config.network.classes)
    run = load(folder.path, STEP.value, (shape["data"], shape["tower"]) if shape else None)
    data, width = run.mesh.devices.shape
    print(f"{folder.path.name} at step {run.step:,}, on {data} x {width} devices ({DATA} x {TOWER})")
    for name in [what] if what else SHOWN:
        print(f"\n{name.capitalize()}", flush=True)
        SHOWN[name](run)


def _shardings(run: TrainedRun) -> None:
    """A drawing of each parameter; one for all that lie alike."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for path, x in jax.tree_util.tree_leaves_with_path(run.state.params):
        facts, *grid = drawing(x)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        alike.setdefault(tuple(grid), []).append(f"  {name:<12}  {facts}")
    for grid, facts in alike.items():
        print("\n".join((*facts, *grid)))


SHOWN: dict[str, Callable[[TrainedRun], None]] = {
    "parameters": lambda run: print(table(run.state.params)),
    "shardings": _shardings,
    "communication": lambda run: print(communication(run)),
    "responses": lambda run: print(responses(run)),
}


if __name__ == "__main__":
    cli.run(main, words=1, pipeable=True)
