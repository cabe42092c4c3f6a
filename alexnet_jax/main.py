"""Trains AlexNet: python -m alexnet_jax.main --config=configs/quickstart.py --workdir=runs/quickstart"""

from absl import flags

from alexnet_jax.config import Config
from alexnet_jax.data.packed import refuse_early
from alexnet_jax.run import processes
from alexnet_jax.run.ancestor import check_ancestor
from alexnet_jax.run.cluster import decide, define_cluster_flags
from alexnet_jax.run.meshes import open_run_mesh
from alexnet_jax.run.preflight import preflight
from alexnet_jax.run.workdir import Workdir

CONFIG = processes.define_config_flag()
WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the run.")
CLUSTER = define_cluster_flags()


def main() -> None:
    """Refuses what cannot work, then trains."""
    cluster, why = decide(CLUSTER.wish())
    workdir = Workdir(processes.require(WORKDIR, "runs/quickstart"), cluster.process if cluster else 0)

    def checks() -> Config:
        config = processes.read_config(CONFIG)
        refuse_early(config.data, config.network.classes)
        workdir.check(config)
        if not workdir.begun:
            check_ancestor(config)
        return config

    if workdir.writes:
        print(f"hosts  {why}", flush=True)
    config, hosts = preflight(cluster, workdir, checks, CLUSTER.join_timeout.value)
    if cluster is not None:
        cluster.join()
    mesh, why = open_run_mesh(config, hosts)
    if workdir.writes and why:
        print(f"chosen {why}", flush=True)
    # TensorFlow takes seconds to import: not before what can be refused without it.
    from alexnet_jax.data.batches import open_packed
    from alexnet_jax.run.loop import train

    train(config, workdir, open_packed(config.data, config.network.classes), mesh)


if __name__ == "__main__":
    processes.run(main)
