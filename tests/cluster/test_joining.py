"""Joining: alone only where nothing says that there are others, and refusals in a line."""

import os
import subprocess
import sys

import pytest

from tests.commands.running import ROOT

JOIN = """
import sys
from absl import flags
from alexnet_jax.cluster.joining import define_cluster_flags, join_processes
from alexnet_jax.errors import UserError

chosen = define_cluster_flags()
flags.FLAGS(sys.argv)
try:
    print(join_processes(chosen, 100))
except UserError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        ([], {}, "1 process (neither flags nor a scheduler say more)"),
        (["--distributed=off"], {"JAX_COORDINATOR_ADDRESS": "localhost:1"}, "1 process (--distributed=off)"),
        ([], {"JAX_COORDINATOR_ADDRESS": "localhost:1"}, "ConfigError JAX_COORDINATOR_ADDRESS=localhost:1: "),
        (["--num_processes=2"], {}, "ConfigError --num_processes=2: "),
        (["--distributed=on"], {}, "ConfigError --distributed=on: "),
        (["--local_device_ids=a"], {}, "ConfigError --local_device_ids=a must be numbers"),
    ],
)
def test_who_is_there(words: list[str], environment: dict[str, str], said: str) -> None:
    command = [sys.executable, "-c", JOIN, *words]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(said), done.stdout
