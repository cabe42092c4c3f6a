"""Packs a data set once: python -m alexnet_jax.prepare --dataset=toyshapes --size=256"""

from absl import flags

from alexnet_jax.config import DataConfig
from alexnet_jax.errors import ConfigError
from alexnet_jax.run import processes

DATASET = flags.DEFINE_string("dataset", None, "The data set's name.", required=True)
SIZE = flags.DEFINE_integer("size", 256, "Side of the packed pictures, in pixels.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where data sets are kept; $ALEXNET_DATA_DIR if not given.")


def main() -> None:
    """Packs it, or says that it is there."""
    if SIZE.value < 1:
        raise ConfigError(f"--size={SIZE.value} must be above 0")
    config = DataConfig(name=DATASET.value, size=SIZE.value, dir=DATA_DIR.value, read_ahead=1)
    from alexnet_jax.data.batches import PackedSet, ensure_packed

    path = ensure_packed(config)
    packed = PackedSet(path)
    counts = ", ".join(f"{packed.images(split)} {split}" for split in packed.info.splits)
    print(f"{config.name}: {counts} pictures of {config.size} x {config.size} in {path}")


if __name__ == "__main__":
    processes.run(main)
