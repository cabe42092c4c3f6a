"""Compiles for hardware that you don't have: python -m alexnet_jax.plan --config=FILE --topology=h100:2x8

It compiles the real training step for that hardware and says what it would need and cost.
"""

import dataclasses
import os

# Compilers read it when they are loaded, and talk too much.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path

from absl import flags

from alexnet_jax import arguments, cli
from alexnet_jax.config.building import build
from alexnet_jax.errors import ConfigError
from alexnet_jax.planning.compiling import plan_run
from alexnet_jax.planning.cost import with_batch
from alexnet_jax.planning.page import plan_text
from alexnet_jax.planning.topology import read_topology

CONFIG = arguments.define_config_flag()
TOPOLOGY = flags.DEFINE_string(
    "topology", None, "CHIP:HOSTSxDEVICES, as in h100:2x8; a TPU's chips, v5e:4x8."
)
BATCH = flags.DEFINE_integer("batch", None, "Pictures in a step; the config's if not given.", lower_bound=1)
MESH = flags.DEFINE_string(
    "mesh", None, "Data x tower, as in 8x2; chosen by what it would cost if not given."
)
SAVE = flags.DEFINE_string("save", None, "The file to write the compiled program's text to.")


def main() -> None:
    """Refuses what cannot work, compiles, and prints the plan."""
    config = arguments.read_config(CONFIG)
    topology = read_topology(arguments.require(TOPOLOGY, "h100:1x2"))
    if BATCH.value is not None:
        config = build(dataclasses.asdict(with_batch(config, BATCH.value)))
    mesh = arguments.read_mesh(MESH.value) if MESH.value is not None else None
    plan = plan_run(config, topology, (mesh["data"], mesh["tower"]) if mesh else None)
    print(plan_text(plan))
    if SAVE.value is not None:
        try:
            Path(SAVE.value).write_text(plan.program.text)
        except OSError as error:
            raise ConfigError(f"--save={SAVE.value} cannot be written: {error.strerror}") from error


if __name__ == "__main__":
    cli.run(main, pipeable=True)
