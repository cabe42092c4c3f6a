"""The folders of data and of a run, and the room on their disks; nothing is changed in them."""

import os
import shutil
import tempfile
from pathlib import Path

import jax
from etils import epath

from alexnet_jax.config.fields import Config
from alexnet_jax.data.archives import PICTURES, first_there
from alexnet_jax.data.packed import (
    DRAWN,
    MARKER,
    contents,
    data_dir,
    find_packed,
    packed_path,
    picture_bytes,
    refuse_early,
)
from alexnet_jax.doctor.findings import FIX, OK, WARN, Judged
from alexnet_jax.errors import RefusedError
from alexnet_jax.learning.state import state_shapes
from alexnet_jax.storage.lock import check_free
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.text import size
from alexnet_jax.training.ancestor import check_ancestor

LITTLE = 10**9  # bytes free, where it is not known how many are needed


def data_set(config: Config) -> Judged:
    """The data set that a config names."""
    path = packed_path(config.data)
    if config.data.name in DRAWN and not path.exists():
        _check_writable(path)
        return OK, f"{config.data.name} is not packed yet: a run draws it, below {path}"
    refuse_early(config.data, config.network.classes)
    return OK, f"{path.name}: {contents(find_packed(config.data).facts)}, as the config asks"


def data_room(config: Config | None) -> Judged:
    """The disk of data sets."""
    folder, need = data_dir(config.data.dir if config else ""), 0
    if "://" in os.fspath(folder):
        return OK, f"{folder} is a bucket, which has no end"
    if config and config.data.name == "imagenet2012" and not (packed_path(config.data) / MARKER).exists():
        need = round(PICTURES * picture_bytes(config.data.size, config.data.encoding))
    return _room(Path(folder), need, "the packed pictures", "take a sixth with --config.data.encoding=jpeg")


def run_room(config: Config | None, workdir: Workdir) -> Judged:
    """The disk of a run's checkpoints: the newest, the best, and one more that is being written."""
    one, count = (checkpoint_bytes(config), config.checkpoint.keep + 2) if config else (0, 0)
    there = sum(path.stat().st_size for path in workdir.checkpoints.rglob("*") if path.is_file())
    need, what = max(one, one * count - there), f"up to {count} checkpoints of {size(one)}"
    return _room(workdir.path, need, what, "lower --config.checkpoint.keep")


def _room(folder: Path, need: int, what: str, way_out: str) -> Judged:
    free = shutil.disk_usage(first_there(folder)).free
    words = f"{size(free)} free at {folder}"
    if need:
        words += f", {size(need)} needed for {what}"
    if free < need:
        return FIX, f"{words}: make room, choose another folder, or {way_out}"
    return (WARN if free < LITTLE and not need else OK), words


def checkpoint_bytes(config: Config) -> int:
    """The size of a checkpoint, uncompressed: weights, velocity, averages."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state_shapes(config)))


def run_folder(config: Config | None, workdir: Workdir) -> Judged:
    """The folder of a run: whether it can be written and is free, what it holds, whether a config fits."""
    _check_writable(workdir.path)
    check_free(workdir.path)
    words = f"{workdir.path} holds no run yet"
    if workdir.config_path.exists() or workdir.begun:
        before = workdir.read_config()
        if config:
            workdir.check_same(config)
        words = f"{workdir.path} holds a run on {before.data.name}, {_progress(workdir)}"
    if config and not workdir.begun:
        check_ancestor(config)
    return OK, words


def _progress(workdir: Workdir) -> str:
    if final := workdir.final():
        return f"finished, at a top-1 error of {100 * final['top1_error']:.1f} %"
    steps = [int(path.name) for path in workdir.checkpoints.glob("[0-9]*") if path.name.isdecimal()]
    return f"saved at step {max(steps)}; the same command goes on" if steps else "which has saved nothing yet"


def _check_writable(folder: Path | epath.Path) -> None:
    """Refuses a folder in which nothing can be made, or, where it is missing, the one above it."""
    there = first_there(folder)
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(4096))
    except OSError as error:
        raise RefusedError(f"cannot write to {there}: {error.strerror}; choose another folder") from error
