"""Error rates of a run's checkpoint: python -m alexnet_jax.evaluate --workdir=runs/quickstart --views=10

Of several runs, as in --workdir=runs/a,runs/b, the probabilities are averaged.
"""

import dataclasses

from absl import flags
from jax.sharding import Mesh

from alexnet_jax import arguments, cli
from alexnet_jax.config.fields import Config
from alexnet_jax.data.packed import refuse_early
from alexnet_jax.errors import ConfigError
from alexnet_jax.sharding.mesh import DATA, open_mesh
from alexnet_jax.sharding.rows import check_batch
from alexnet_jax.storage.files import to_json
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.trained.ensemble import check_alike, evaluate_together
from alexnet_jax.trained.opened import load_run

WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a run; of several, with commas between.")
STEP = flags.DEFINE_integer("step", None, "The checkpoint; the newest if not given.")
VIEWS = flags.DEFINE_integer(
    "views", None, "1: the centre; 9: a 3 x 3 grid; 10: corners, centre and their mirror images."
)
BATCH = flags.DEFINE_integer("batch_size", None, "Pictures at a time; the config's if not given.")
MESH = flags.DEFINE_string("mesh", None, "Data x tower, as in 1x2; the config's if not given.")
WEIGHTS = flags.DEFINE_enum(
    "weights", "even", ["even", "fitted"], "Of several runs; fitted on the validation split itself."
)


def main() -> None:
    """Restores the parameters onto a mesh and evaluates them."""
    workdirs = [Workdir(path) for path in arguments.require(WORKDIR, "runs/quickstart").split(",")]
    for workdir in workdirs:
        if sum(other.path == workdir.path for other in workdirs) > 1:
            raise ConfigError(f"--workdir names {workdir.path} twice")
    if len(workdirs) == 1 and WEIGHTS.value == "fitted":
        raise ConfigError("--weights=fitted needs several runs, as in --workdir=runs/a,runs/b")
    choices = (VIEWS.value, BATCH.value, MESH.value)
    configs = [arguments.with_flags(workdir.read_config(), *choices) for workdir in workdirs]
    for config in configs:
        refuse_early(config.data, config.network.classes)
    check_alike(workdirs, configs)
    opening = zip(workdirs, _open_meshes(configs), configs, strict=True)
    runs = (load_run(workdir, STEP.value, mesh, config) for workdir, mesh, config in opening)
    if len(workdirs) == 1:
        found = next(runs).evaluate()
    else:
        found = evaluate_together(runs, fitted=WEIGHTS.value == "fitted")
    print(to_json(found))


def _open_meshes(configs: list[Config]) -> list[Mesh]:
    """A mesh for each; devices are simulated once, as many as any of them asks for."""
    meshes, simulated = [], max(config.mesh.cpu_devices for config in configs)
    for config in configs:
        wanted = dataclasses.replace(config.mesh, cpu_devices=0 if meshes else simulated)
        meshes.append(open_mesh(wanted, config.network.towers))
        name = "--batch_size" if BATCH.value or MESH.value else "evaluation.batch_size"
        check_batch(meshes[-1].shape[DATA], name, config.evaluation.batch_size)
    return meshes


if __name__ == "__main__":
    cli.run(main, pipeable=True)
