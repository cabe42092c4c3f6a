"""Joining the processes of a run: JAX finds them by itself on SLURM, Open MPI, TPU pods and Kubernetes."""

import contextlib
import faulthandler
import os
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import jax
from absl import flags

from alexnet_jax.errors import REFUSED, ConfigError, RefusedError
from alexnet_jax.text import first_line

ADDRESS = "JAX_COORDINATOR_ADDRESS"  # of process 0, read by JAX
SILENCE = 10  # seconds after which a wait is reported
MARGIN = 30  # seconds; we give up before JAX does


@dataclass(frozen=True)
class ClusterFlags:
    """The flags of a command that several processes may run together."""

    distributed: flags.FlagHolder[str]
    coordinator_address: flags.FlagHolder[str | None]
    num_processes: flags.FlagHolder[int | None]
    process_id: flags.FlagHolder[int | None]
    local_device_ids: flags.FlagHolder[list[str] | None]
    join_timeout: flags.FlagHolder[int]


def define_cluster_flags() -> ClusterFlags:
    """`--distributed` and what goes with it."""
    return ClusterFlags(
        flags.DEFINE_enum(
            "distributed",
            "auto",
            ["auto", "on", "off"],
            "Join other processes: where flags or the environment say that there are any, always, or never.",
        ),
        flags.DEFINE_string("coordinator_address", None, "HOST:PORT where process 0 can be reached."),
        flags.DEFINE_integer("num_processes", None, "How many processes there are.", lower_bound=1),
        flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.", lower_bound=0),
        flags.DEFINE_list("local_device_ids", None, "The GPUs of this host that this process takes, as 0,1."),
        flags.DEFINE_integer(
            "join_timeout", 300, "Seconds to wait for the processes that are missing.", lower_bound=1
        ),
    )


def join_processes(chosen: ClusterFlags, heartbeat: int) -> str:
    """Joins the other processes, if there are any, before the first use of a device; how many, and by what.

    A process is dead after `heartbeat` seconds without a word.
    """
    if chosen.distributed.value == "off":
        return "1 process (--distributed=off)"
    three = (chosen.coordinator_address, chosen.num_processes, chosen.process_id)
    given = {flag.name: flag.value for flag in three if flag.value is not None}
    said = [f"--{name}={value}" for name, value in given.items()]
    said += [f"{ADDRESS}={os.environ[ADDRESS]}"] if os.environ.get(ADDRESS) else []
    said += ["--distributed=on"] if chosen.distributed.value == "on" else []
    try:
        with _limited_wait(chosen.join_timeout.value):
            jax.distributed.initialize(
                **given,
                local_device_ids=_device_ids(chosen),
                initialization_timeout=chosen.join_timeout.value + MARGIN,
                heartbeat_timeout_seconds=heartbeat,
                shutdown_timeout_seconds=heartbeat,
            )
    except (ValueError, TypeError, IndexError) as error:  # a flag is missing, or an address has no port
        if said:
            raise ConfigError(
                f"{' '.join(said)}: JAX says {error}; give --coordinator_address=HOST:PORT, "
                "--num_processes and --process_id, or start with a file of launch/"
            ) from error
        return "1 process (neither flags nor a scheduler say more)"
    except RuntimeError as error:
        if cluster_state().coordinator_address is None:  # JAX was used before
            raise
        raise RefusedError(
            f"process 0 cannot listen at {cluster_state().coordinator_address} ({error}): choose another "
            "port with --coordinator_address or JAX_COORDINATOR_PORT"
        ) from error
    # JAX aborts this process when it loses another; our stack trace would add nothing.
    faulthandler.disable()
    return f"{cluster_state().num_processes} processes, process 0 at {cluster_state().coordinator_address}"


@contextlib.contextmanager
def _limited_wait(seconds: int) -> Iterator[None]:
    """Reports that this process waits, and ends it at the limit: JAX would abort it with less to read."""
    ended = threading.Event()

    def watch() -> None:
        if not ended.wait(min(SILENCE, seconds)):
            print(f"waiting for other processes, at most {seconds} s", file=sys.stderr, flush=True)
        if not ended.wait(max(seconds - SILENCE, 0)):
            state = cluster_state()
            print(
                f"error: process {state.process_id} has waited {seconds} s for the others of "
                f"{state.num_processes} to come to {state.coordinator_address}",
                file=sys.stderr,
                flush=True,
            )
            os._exit(REFUSED)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def cluster_state() -> "jax._src.distributed.State":
    """The processes that JAX has joined, without a device: JAX's public functions all use one."""
    return jax._src.distributed.global_state


def _device_ids(chosen: ClusterFlags) -> list[int] | None:
    words = chosen.local_device_ids.value
    try:
        return list(map(int, words)) if words else None
    except ValueError as error:
        raise ConfigError(f"--local_device_ids={','.join(words)} must be numbers, as in 0,1") from error


def lost_peer(error: Exception) -> str:
    """The first line of an error that comes of a lost process; "" for any other error."""
    line = first_line(error)
    return line if re.search(r"gloo|peer|connection|unavailable|heartbeat", line, re.IGNORECASE) else ""
