"""Says whether this machine can run this project: python -m alexnet_jax.doctor --config=FILE --workdir=DIR

Both may be left out. Before it knows what is installed it imports nothing but Python's own modules.
"""

import contextlib
import itertools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

from alexnet_jax.doctor.findings import FIX, Finding, check, reason, report
from alexnet_jax.doctor.installed import LIST, installed
from alexnet_jax.errors import REFUSED, RefusedError, UserError

if TYPE_CHECKING:
    from alexnet_jax.config.fields import Config


def begin() -> None:
    """Checks what is installed and, where that can be imported, the rest."""
    found = list(installed())
    try:
        from absl import flags

        import alexnet_jax.doctor.machine  # noqa: F401
        from alexnet_jax import arguments, cli
    except Exception as error:  # whatever a package raises that is missing or broken
        _end([*found, Finding("imports", FIX, f"{reason(error)}: pip install -U -r {LIST}")])
    config = arguments.define_config_flag()
    workdir = flags.DEFINE_string("workdir", None, "The folder of a run, there already or not.")

    def main() -> None:
        wanted = arguments.read_config(config) if config.value is not None else None
        report(itertools.chain(found, checks(wanted, workdir.value)))

    cli.run(main, pipeable=True)


def checks(config: "Config | None", path: str | None) -> Iterator[Finding]:
    """The machine, the folder of a run, the data; without a config that of the folder's run is taken."""
    from alexnet_jax.doctor import folders, machine
    from alexnet_jax.storage.workdir import Workdir

    if machine.gpus():
        yield check("gpu", machine.driver)
    elif machine.LARGE_PAGES.exists():
        yield check("pages", machine.large_pages)
    if path:
        workdir = Workdir(path)
        yield check("workdir", folders.run_folder, config, workdir)
        with contextlib.suppress(UserError):  # `run_folder` has said so
            config = config or workdir.read_config()
        yield check("run disk", folders.run_room, config, workdir)
    if config:
        yield check("data", folders.data_set, config)
    yield check("data disk", folders.data_room, config)
    yield check("open files", machine.open_files)
    yield from machine.machine(config)
    if config and folders.packed_path(config.data).exists():
        yield check("pictures", machine.pictures, config)


def _end(found: list[Finding]) -> NoReturn:
    """Ends as `cli.run` would, which needs packages itself."""
    try:
        report(found)
    except RefusedError as error:
        print(f"error: {error}", file=sys.stderr)
    sys.exit(REFUSED)


if __name__ == "__main__":
    begin()
