"""Everything that is looked at before a machine is trusted with a run; what takes seconds comes last."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from alexnet_jax.config import Config
from alexnet_jax.data.archives import OPEN_FILES
from alexnet_jax.data.packed import find_packed
from alexnet_jax.errors import UserError
from alexnet_jax.run.findings import MEND, OK, WARN, Answer, Finding, apart, look
from alexnet_jax.run.folders import data_room, data_sets, run_folder, run_room
from alexnet_jax.run.hardware import gpus, hardware
from alexnet_jax.run.workdir import Workdir

# A run on a CPU works where 64 may be open, with a set of 24 files, and fails at 32; GPUs open some more.
FILES = 256
LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
TUNABLE = "glibc.malloc.hugetlb=1"


def checkup(config: Config | None, path: str | None) -> Iterator[Finding]:
    """The machine, the folder of a run, the data; without a config that of the folder's run is taken."""
    found, gpu = gpus()
    if found:
        yield found
    if not gpu and LARGE_PAGES.exists():
        yield look("pages", large_pages)
    workdir = None
    if path:
        workdir = Workdir(path)
        yield look("workdir", run_folder, config, workdir)
        config = config or _of_run(workdir)
        yield look("run disk", run_room, config, workdir)
    yield from data_sets(config)
    yield look("data disk", data_room, config)
    yield look("open files", open_files, config)
    yield from apart(hardware, config, gpu)


def _of_run(workdir: Workdir) -> Config | None:
    try:
        return workdir.read_config()
    except UserError:  # `run_folder` has said so
        return None


def open_files(config: Config | None) -> Answer:
    """How many files may be open at once."""
    soft, hard = (
        limit if limit >= 0 else float("inf") for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    words, need = f"{soft} at once, and {hard} if asked for", FILES + _set_files(config)
    if soft < need:
        return MEND, f"{words}; a run opens up to {need}: ulimit -n {need}"
    if hard < OPEN_FILES:
        return WARN, f"{words}; to unpack ImageNet {OPEN_FILES} are needed: ulimit -Hn {OPEN_FILES}"
    return OK, f"{words}; a run opens up to {need}"


def _set_files(config: Config | None) -> int:
    """Files of the data set, which all stay open; 0 where there is none yet."""
    try:
        splits = find_packed(config.data).facts["splits"].values() if config else ()
        return sum(len(split["files"]) for split in splits)
    except (UserError, OSError):  # `data_sets` has said so
        return 0


def large_pages() -> Answer:
    """Whether this process's memory may lie in large pages."""
    allowed = LARGE_PAGES.read_text().partition("[")[2].partition("]")[0]
    asked = TUNABLE in os.environ.get("GLIBC_TUNABLES", "")
    if allowed == "always" or (allowed == "madvise" and asked):
        return OK, f"large ones are given ({allowed})"
    if allowed == "madvise":
        return WARN, f"GLIBC_TUNABLES={TUNABLE} makes a step on a CPU up to a quarter faster"
    return (
        WARN,
        f"large ones are switched off in {LARGE_PAGES}: they make a step on a CPU up to a quarter faster",
    )
