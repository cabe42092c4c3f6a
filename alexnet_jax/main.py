"""Trains AlexNet: python -m alexnet_jax.main --config=configs/quickstart.py --workdir=runs/quickstart"""

import contextlib
import io
import signal

import jax
from absl import flags

from alexnet_jax import arguments, cli
from alexnet_jax.cluster.joining import cluster_state, define_cluster_flags, join_processes, lost_peer
from alexnet_jax.cluster.preflight import preflight
from alexnet_jax.config.fields import Config
from alexnet_jax.data.packed import refuse_early
from alexnet_jax.errors import ConfigError, Interrupted, LostError
from alexnet_jax.reporting.account import check_wandb
from alexnet_jax.signals import leave_in_order
from alexnet_jax.storage.lock import locked
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.training.ancestor import check_ancestor
from alexnet_jax.training.devices import open_run_mesh

CONFIG = arguments.define_config_flag()
WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the run.")
ALLOW = flags.DEFINE_bool(
    "allow_config_change", False, "Go on with a run whose network, data or their order were others."
)
QUIET = flags.DEFINE_bool("quiet", False, "Print the results at the end, warnings and errors only.")
CLUSTER = define_cluster_flags()
HEARTBEAT = 100  # seconds, where no config says how many; JAX's own


def main() -> None:
    """Joins the other processes, refuses what cannot work, then trains."""
    signal.signal(signal.SIGTERM, leave_in_order)  # until training handles it
    where = arguments.require(WORKDIR, "runs/quickstart")
    config, problem = None, None
    try:
        config = arguments.read_config(CONFIG)
    except ConfigError as error:
        problem = error
    hosts = join_processes(CLUSTER, config.limits.heartbeat if config else HEARTBEAT)
    workdir = Workdir(where, cluster_state().process_id)
    _say(workdir, f"hosts  {hosts}")
    with contextlib.ExitStack() as held:

        def checks() -> Config:
            if problem is not None:
                raise problem
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

        preflight(checks, workdir.path, CLUSTER.join_timeout.value)
        try:
            _train(config, workdir)
        except Interrupted as error:
            again = "start all processes again" if cluster_state().client else cli.command()
            raise Interrupted(f"{error}; to go on: {again}") from error
        except jax.errors.JaxRuntimeError as error:
            if cluster_state().client and (reason := lost_peer(error)):
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
    from alexnet_jax.training.loop import train

    with contextlib.redirect_stdout(io.StringIO()) if QUIET.value else contextlib.nullcontext():
        packed = open_packed(config.data, config.network.classes)  # it may have to be made first
    train(config, workdir, packed, mesh, quiet=QUIET.value, recipe=arguments.recipe(CONFIG))


if __name__ == "__main__":
    cli.run(main)
