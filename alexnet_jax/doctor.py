"""Says whether this machine can run this project: python -m alexnet_jax.doctor --config=FILE --workdir=DIR

Both may be left out. Before it knows what is installed it imports nothing but Python's own modules.
"""

import itertools
import sys
from typing import NoReturn

from alexnet_jax.errors import REFUSED, RefusedError
from alexnet_jax.run.findings import MEND, Finding, reason, tell
from alexnet_jax.run.installed import LIST, installed


def begin() -> None:
    """Looks at what is installed and, where that can be imported, at the rest."""
    found = list(installed())
    try:
        from absl import flags

        from alexnet_jax.run import processes
        from alexnet_jax.run.checkup import checkup
    except Exception as error:  # whatever a package raises that is missing or broken
        _end([*found, Finding("imports", MEND, f"{reason(error)}: pip install -U -r {LIST}")])
    config = processes.define_config_flag()
    workdir = flags.DEFINE_string("workdir", None, "The folder of a run, there already or not.")

    def main() -> None:
        wanted = processes.read_config(config) if config.value is not None else None
        tell(itertools.chain(found, checkup(wanted, workdir.value)))

    processes.run(main, looks=True)


def _end(found: list[Finding]) -> NoReturn:
    """As `processes.run` would, which needs packages itself."""
    try:
        tell(found)
    except RefusedError as error:
        print(f"error: {error}", file=sys.stderr)
    sys.exit(REFUSED)


if __name__ == "__main__":
    begin()
