"""Packs a data set once: python -m alexnet_jax.prepare --dataset=imagenet2012 --manual_dir=FOLDER"""

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from absl import flags
from etils import epath

from alexnet_jax import arguments, cli
from alexnet_jax.config.fields import DataConfig
from alexnet_jax.data.packed import DRAWN, MARKER, check_writable, contents, find_packed, packed_path
from alexnet_jax.errors import RefusedError
from alexnet_jax.signals import Guard, interruptible

if TYPE_CHECKING:
    from alexnet_jax.data.sources import Source

# The config that is made for a data set; there, the sizes of pictures and of crops, and the classes.
RECIPES = {
    "imagenet2012": ("imagenet", 256, 224, 1000),
    "cifar10": ("cifar10", 32, 28, 10),
    "fashion_mnist": ("fashion_mnist", 28, 24, 10),
    "toyshapes": ("quickstart", 72, 64, 10),
}
LEAST_FOR_IMAGENET = 80  # pixels; smaller pictures suit the config for CIFAR-10

DATASET = flags.DEFINE_string("dataset", None, "Any TFDS data set of pictures, toyshapes or toyshapes21.")
FOLDER = flags.DEFINE_string("folder", "", "Take its pictures from here: train/CLASS/* and val/CLASS/*.")
MANUAL_DIR = flags.DEFINE_string("manual_dir", "", "Where the archives lie that TFDS cannot download.")
TFDS_DIR = flags.DEFINE_string("tfds_dir", "", "Where TFDS keeps its data sets, if not in its usual place.")
ARCHIVES = flags.DEFINE_enum(
    "archives", "sizes", ["sizes", "md5", "any"], "How ImageNet's archives are checked: md5 takes minutes."
)
SIZE = flags.DEFINE_integer("size", 256, "Side of the packed pictures, in pixels.", lower_bound=1)
ENCODING = flags.DEFINE_enum("encoding", "raw", ["raw", "jpeg"], "raw is fastest, jpeg a sixth as large.")
QUALITY = flags.DEFINE_integer("quality", 95, "Of JPEGs.", lower_bound=1, upper_bound=100)
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where packed sets are kept; $ALEXNET_DATA_DIR if not given.")
SHARD = flags.DEFINE_string("shard", "0/1", "This host's number / how many hosts share the work, as in 0/4.")
PROCESSES = flags.DEFINE_integer("processes", 0, "At work at once; 0: as many as cores.", lower_bound=0)
MOST_BAD = flags.DEFINE_float(
    "most_bad", 0.001, "Share of pictures that may be left out.", lower_bound=0, upper_bound=1
)
VERIFY = flags.DEFINE_boolean("verify", False, "Read a packed set back instead: counts, digests, pictures.")


def main() -> None:
    """Packs it, or says that it is there."""
    name = arguments.require(DATASET, "imagenet2012")
    config = DataConfig(name, SIZE.value, ENCODING.value, DATA_DIR.value, 1, 0, 0, trace=False)
    share = arguments.read_share(SHARD)
    count = PROCESSES.value or os.cpu_count()
    if FOLDER.value and not epath.Path(FOLDER.value).expanduser().is_dir():
        raise RefusedError(f"--folder={FOLDER.value}: there is no such folder")
    there = (packed_path(config) / MARKER).exists()
    if not there and not VERIFY.value and not make(config, share, count):
        print(f"share {SHARD.value} is packed; the host that is the last to finish makes it a set")
        return
    packed = find_packed(config)
    if VERIFY.value:
        from alexnet_jax.data.verifying import verify

        verify(packed, count)
    verified = "every picture read back, " if VERIFY.value else ""
    before = "" if VERIFY.value or not there else "already packed; delete its folder to pack anew: "
    print(f"{before}{contents(packed.facts)}; {verified}digest {packed.facts['digest']}, in {packed.path}")
    print(f"next: {training_command(config, packed.facts['classes'])}")


def training_command(config: DataConfig, classes: int) -> str:
    """The command that trains on a packed set."""
    like = "toyshapes" if config.name in DRAWN else config.name
    if like not in RECIPES:
        like = "imagenet2012" if config.size >= LEAST_FOR_IMAGENET else "cifar10"
    recipe, size, crop, usual = RECIPES[like]
    run = recipe if like == config.name else config.name.replace("/", "-").replace(":", "-")
    command = f"python -m alexnet_jax.main --config=configs/{recipe}.py --workdir=runs/{run}"
    for field, value, default in (
        ("data.name", config.name, like),
        ("data.size", config.size, size),
        ("network.image_size", round(config.size * crop / size), crop),
        ("data.encoding", config.encoding, "raw"),
        ("data.dir", config.dir, ""),
        ("network.classes", classes, usual),
    ):
        command += f" --config.{field}={value}" if value != default else ""
    return command


def make(config: DataConfig, share: tuple[int, int], count: int) -> bool:
    """Packs this host's share of a set; whether it is one now."""
    target = packed_path(config)
    check_writable(target.parent)
    # TensorFlow takes seconds to import: not before what can be refused without it.
    from alexnet_jax.data.packing import Work, check_space, pack, plan_packing
    from alexnet_jax.data.shards import PackedForm

    form = PackedForm(config.size, config.encoding)
    if config.encoding == "jpeg":
        form = replace(form, quality=QUALITY.value)
    with interruptible(
        "stopped while the source was being made; the same command makes it anew, and goes on"
    ):
        source = open_source(config, share[0], form.picture_bytes)
    plan = plan_packing(source, form, target)
    mine = plan.shards[share[0] :: share[1]]
    waiting = [shard for shard in plan.waiting() if shard in mine]
    counts = ", ".join(f"{count} {split}" for split, count in source.counts.items())
    print(f"source   {source.origin}: {counts} pictures, {len(source.class_names)} classes")
    print(f"target   {target}: {plan.form.words}, about {plan.bytes(plan.shards) / 1e9:.2f} GB")
    ours = f"of this host's {len(mine)}" if share[1] > 1 else f"of {len(mine)}"
    print(f"files    {len(waiting)} {ours} are to be written, {count} at a time", flush=True)
    check_space(plan)
    with Guard() as guard:
        return pack(plan, Work(count, share, MOST_BAD.value, guard.poll))


def open_source(config: DataConfig, share: int, picture_bytes: float) -> "Source":
    """The source of pictures that the flags name."""
    from alexnet_jax.data import sources
    from alexnet_jax.data.toyshapes import SUBJECTS

    if FOLDER.value:
        return sources.FolderSource(config.name, epath.Path(FOLDER.value).expanduser())
    if config.name in DRAWN:
        return sources.DrawnSource(config.name, SUBJECTS[config.name])
    packed = (packed_path(config), picture_bytes)
    making = sources.Making(MANUAL_DIR.value, TFDS_DIR.value, ARCHIVES.value, share, packed)
    return sources.open_tfds(config.name, making)


if __name__ == "__main__":
    cli.run(main)
