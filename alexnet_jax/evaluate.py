"""Error rates of a run's checkpoint: python -m alexnet_jax.evaluate --workdir=runs/quickstart --views=10"""

import dataclasses

from absl import flags

from alexnet_jax.build import build
from alexnet_jax.config import Config
from alexnet_jax.data.packed import refuse_early
from alexnet_jax.mesh import check_batch, open_mesh
from alexnet_jax.run import processes
from alexnet_jax.run.workdir import Workdir, to_json

WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the run.")
STEP = flags.DEFINE_integer("step", None, "The checkpoint; the newest if not given.")
VIEWS = flags.DEFINE_integer(
    "views", None, "1: the centre; 9: a 3 x 3 grid; 10: corners, centre and their mirror images."
)
BATCH = flags.DEFINE_integer("batch_size", None, "Pictures at a time; the config's if not given.")
MESH = flags.DEFINE_string("mesh", None, "Data x tower, as in 1x2; the config's if not given.")


def main() -> None:
    """Restores the parameters onto a mesh and evaluates them."""
    workdir = Workdir(processes.require(WORKDIR, "runs/quickstart"))
    config = _chosen(workdir.read_config())
    refuse_early(config.data)
    mesh = open_mesh(config)
    check_batch(
        mesh,
        "--batch_size" if BATCH.value or MESH.value else "evaluation.batch_size",
        config.evaluation.batch_size,
    )
    from alexnet_jax.data.batches import open_packed
    from alexnet_jax.data.progress import Progress
    from alexnet_jax.run.checkpoint import Checkpoints
    from alexnet_jax.run.evaluation import Evaluator
    from alexnet_jax.run.loop import restore

    checkpoints = Checkpoints(workdir.checkpoints)
    step = checkpoints.choose(STEP.value)
    state, _, _ = restore(checkpoints, step, config, mesh)
    evaluator = Evaluator(config, mesh, open_packed(config.data, config.network.classes))
    with Progress("evaluating", evaluator.images) as progress:
        figures = evaluator(state.params, progress.update)
    print(to_json({"step": step, "images": evaluator.images, "views": config.evaluation.views, **figures}))


def _chosen(config: Config) -> Config:
    """The config of the run with what the flags say instead."""
    values = dataclasses.asdict(config)
    if VIEWS.value is not None:
        values["evaluation"]["views"] = VIEWS.value
    if BATCH.value is not None:
        values["evaluation"]["batch_size"] = BATCH.value
    if MESH.value is not None:
        values["mesh"] |= processes.read_mesh(MESH.value)
        if values["mesh"]["cpu_devices"]:  # the run's own were simulated: so are these
            values["mesh"]["cpu_devices"] = values["mesh"]["data"] * values["mesh"]["tower"]
    return build(values)


if __name__ == "__main__":
    processes.run(main)
