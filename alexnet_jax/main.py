"""Trains AlexNet: python -m alexnet_jax.main --config=configs/quickstart.py --workdir=runs/quickstart"""

import contextlib
import io
import signal

import jax
from absl import flags

from alexnet_jax.config import Config
from alexnet_jax.data.packed import refuse_early
from alexnet_jax.errors import Interrupted, LostError
from alexnet_jax.run import processes
from alexnet_jax.run.account import check_wandb
from alexnet_jax.run.ancestor import check_ancestor
from alexnet_jax.run.cluster import decide, define_cluster_flags, lost_peer
from alexnet_jax.run.guard import leave_in_order
from alexnet_jax.run.lock import locked
from alexnet_jax.run.meshes import open_run_mesh
from alexnet_jax.run.preflight import preflight
from alexnet_jax.run.workdir import Workdir

CONFIG = processes.define_config_flag()
WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the run.")
ALLOW = flags.DEFINE_bool(
    "allow_config_change", False, "Go on with a run whose network, data or their order were others."
)
QUIET = flags.DEFINE_bool("quiet", False, "Print the results at the end, warnings and errors only.")
CLUSTER = define_cluster_flags()


def main() -> None:
    """Refuses what cannot work, then trains."""
    signal.signal(signal.SIGTERM, leave_in_order)  # until training has its own way
    cluster, why = decide(CLUSTER.wish())
    workdir = Workdir(processes.require(WORKDIR, "runs/quickstart"), cluster.process if cluster else 0)
    _say(workdir, f"hosts  {why}")
    with contextlib.ExitStack() as held:

        def checks() -> Config:
            config = processes.read_config(CONFIG)
            refuse_early(config.data, config.network.classes)
            workdir.check()
            if not ALLOW.value:
                workdir.check_same(config)
            if workdir.writes:
                check_wandb(config.wandb)
                held.enter_context(locked(workdir.path))
            if not workdir.begun:
                check_ancestor(config)
            return config

        config = preflight(cluster, workdir, checks, CLUSTER.join_timeout.value)
        if cluster is not None:
            cluster.join(config.limits.heartbeat)
        try:
            _train(config, workdir)
        except Interrupted as error:
            again = "start all processes again" if cluster else processes.command()
            raise Interrupted(f"{error}; to go on: {again}") from error
        except jax.errors.JaxRuntimeError as error:
            if cluster is not None and (reason := lost_peer(error)):
                raise LostError(f"another process is gone ({reason}); start all processes again") from error
            raise


def _say(workdir: Workdir, text: str) -> None:
    if workdir.writes and not QUIET.value:
        print(text, flush=True)


def _train(config: Config, workdir: Workdir) -> None:
    mesh, why = open_run_mesh(config)
    if why:
        _say(workdir, f"chosen {why}")
    # TensorFlow takes seconds to import: not before what can be refused without it.
    from alexnet_jax.data.batches import open_packed
    from alexnet_jax.run.loop import train

    with contextlib.redirect_stdout(io.StringIO()) if QUIET.value else contextlib.nullcontext():
        packed = open_packed(config.data, config.network.classes)  # it may have to be made first
    train(config, workdir, packed, mesh, quiet=QUIET.value, recipe=processes.recipe(CONFIG))


if __name__ == "__main__":
    processes.run(main)
