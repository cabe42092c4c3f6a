"""Trains AlexNet: python -m alexnet_jax.main --config=configs/quickstart.py --workdir=runs/quickstart"""

from absl import flags

from alexnet_jax.data.packed import refuse_early
from alexnet_jax.mesh import check_batch, open_mesh
from alexnet_jax.run import processes
from alexnet_jax.run.ancestor import check_ancestor
from alexnet_jax.run.workdir import Workdir

CONFIG = processes.define_config_flag()
WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the run.")


def main() -> None:
    """Refuses what cannot work, then trains."""
    config, workdir = processes.read_config(CONFIG), Workdir(processes.require(WORKDIR, "runs/quickstart"))
    refuse_early(config.data)
    workdir.check(config)
    if not workdir.begun:
        check_ancestor(config)
    mesh = open_mesh(config)
    check_batch(mesh, "train.batch_size", config.train.batch_size)
    check_batch(mesh, "evaluation.batch_size", config.evaluation.batch_size)
    # TensorFlow takes seconds to import: not before what can be refused without it.
    from alexnet_jax.data.batches import open_packed
    from alexnet_jax.run.loop import train

    train(config, workdir, open_packed(config.data, config.network.classes), mesh)


if __name__ == "__main__":
    processes.run(main)
