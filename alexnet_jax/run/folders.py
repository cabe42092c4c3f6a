"""What a check finds in the folders of data and of a run, and the room on their disks; nothing is changed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jax
from etils import epath

from alexnet_jax.config import Config, DataConfig
from alexnet_jax.data.archives import PICTURES, nearest
from alexnet_jax.data.packed import (
    DRAWN,
    MARKER,
    PackedFiles,
    data_dir,
    describe,
    find_packed,
    packed_path,
    picture_bytes,
    refuse_early,
)
from alexnet_jax.errors import RefusedError, UserError
from alexnet_jax.learning.state import state_shapes
from alexnet_jax.run.ancestor import check_ancestor
from alexnet_jax.run.findings import MEND, OK, WARN, Answer, Finding, look, reason, size
from alexnet_jax.run.lock import check_free
from alexnet_jax.run.workdir import Workdir

LITTLE = 10**9  # bytes free, where it is not known how many are needed
PARTS = ("arrays", "progress", "digests")  # of a checkpoint


def data_sets(config: Config | None) -> Iterator[Finding]:
    """The packed sets that there are; the config's own first."""
    if config:
        yield look("data", own_set, config)
    try:
        own = packed_path(config.data) if config else None
        packed = own.parent if own else data_dir("") / "packed"
        check_folder(packed.parent)
        there = sorted(packed.iterdir()) if packed.exists() else []
    except (UserError, OSError) as error:
        if not config:
            yield Finding("data", MEND, reason(error))
        return
    others = [path for path in there if path != own and not path.name.startswith(".")]
    if not (others or config):
        yield Finding("data", OK, f"no data set is packed below {packed}")
    for path in others:
        found = look("data", other_set, path)
        yield found if found.verdict == OK else replace(found, verdict=WARN)  # nobody asks for it now


def own_set(config: Config) -> Answer:
    """The data set that a config names."""
    check_folder(data_dir(config.data.dir))
    if config.data.name in DRAWN and not packed_path(config.data).exists():
        return OK, f"{config.data.name} is not packed yet: a run draws it, below {packed_path(config.data)}"
    found = find_packed(config.data)
    refuse_early(config.data, config.network.classes)
    return OK, f"{holds(found)}, as the config asks"


def other_set(path: epath.Path) -> Answer:
    """A data set that no config names."""
    parts = path.name.rsplit("-", 2)
    if len(parts) < 3 or not parts[1].isdecimal():
        return WARN, f"{path} is not named as packed sets are"
    config = DataConfig(
        parts[0], int(parts[1]), parts[2], os.fspath(path.parent.parent), 1, 0, 0, trace=False
    )
    return OK, holds(find_packed(config))


def holds(found: PackedFiles) -> str:
    """What a set holds; refuses files that are shorter than their pictures."""
    form, total = found.facts["form"], 0
    for split in found.facts["splits"].values():
        for name, file in split["files"].items():
            there = (found.path / name).stat().length
            # What a picture takes as a JPEG is not known.
            least = file["rows"] * picture_bytes(form["size"], "raw") if form["encoding"] == "raw" else 1
            if file["rows"] and there < least:
                raise RefusedError(
                    f"{found.path} is damaged: {name} has {there} bytes, {file['rows']} pictures take at "
                    f"least {least}; delete it, and pack anew"
                )
            total += there
    return f"{found.path.name}: {describe(found.facts)}, {size(total)}"


def check_folder(folder: epath.Path) -> None:
    """Refuses a folder that is not there and cannot be made, or that cannot be read."""
    if "://" in os.fspath(folder):
        return
    if not folder.exists():
        check_writable(Path(folder))
    elif not os.access(folder, os.R_OK | os.X_OK) or not folder.is_dir():
        raise RefusedError(f"{folder} is not a folder that can be read: choose another, or mend its rights")


def check_writable(folder: Path) -> None:
    """Refuses a folder in which nothing can be made, or, where it is missing, the one above it."""
    there = nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(4096))
    except OSError as error:
        raise RefusedError(f"cannot write to {there}: {error.strerror}; choose another folder") from error


def data_room(config: Config | None) -> Answer:
    """The disk of data sets."""
    folder = data_dir(config.data.dir if config else "")
    if "://" in os.fspath(folder):
        return OK, f"{folder} is a bucket, which has no end"
    need, what = data_need(config), "the packed pictures"
    return room(Path(folder), need, what, "take a sixth with --config.data.encoding=jpeg")


def data_need(config: Config | None) -> int:
    """Bytes that are still to be packed, where that is known."""
    if config is None or config.data.name != "imagenet2012":
        return 0
    path = packed_path(config.data)
    there = sum(file.stat().length for file in path.iterdir()) if path.exists() else 0
    need = round(PICTURES * picture_bytes(config.data.size, config.data.encoding))
    return 0 if (path / MARKER).exists() else max(0, need - there)


def run_room(config: Config | None, workdir: Workdir) -> Answer:
    """The disk of a run's checkpoints."""
    if config is None:
        return room(workdir.path, 0, "", "")
    one, count = checkpoint_bytes(config), checkpoint_count(config)
    there = sum(path.stat().st_size for path in workdir.checkpoints.rglob("*") if path.is_file())
    # One more is written before the oldest goes.
    need = max(one * 11 // 10, one * (count + 1) - there)
    what = f"up to {count + 1} checkpoints of {size(one)}"
    what += f", of which {size(there)} are there" if there else ""
    return room(workdir.path, need, what, "lower --config.checkpoint.keep")


def room(folder: Path, need: int, what: str, way_out: str) -> Answer:
    """What is free on a folder's disk, and whether that is enough."""
    free = shutil.disk_usage(nearest(folder)).free
    words = f"{size(free)} free at {folder}"
    if free < need:
        return (
            MEND,
            f"{words}, {size(need)} needed for {what}: make room, choose another folder, or {way_out}",
        )
    if need:
        return OK, f"{words}, {size(need)} needed for {what}"
    return (WARN if free < LITTLE else OK), words


def checkpoint_bytes(config: Config) -> int:
    """What a checkpoint takes, uncompressed: weights, velocity, averages."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state_shapes(config)))


def checkpoint_count(config: Config) -> int:
    """How many a run keeps at most, as the config says."""
    kept, train = config.checkpoint, config.train
    periods = int(train.epochs // kept.keep_epochs) if kept.keep_epochs else 0
    if train.steps:
        periods = min(periods, train.steps // kept.period)
    return kept.keep + periods + kept.keep_best


def run_folder(config: Config | None, workdir: Workdir) -> Answer:
    """The folder of a run: whether it can be written and is free, what it holds, whether a config fits."""
    check_writable(workdir.path)
    check_free(workdir.path)
    if not workdir.path.exists():
        words = f"{workdir.path} is made by the run"
    elif not (workdir.config_path.exists() or workdir.begun):
        words = f"{workdir.path} holds no run yet"
    else:
        before = workdir.read_config()
        if config:
            workdir.check_same(config)
        words = f"{workdir.path} {_progress(workdir, before)}"
        if missing := _missing(workdir):
            return WARN, f"{words}; {missing}: a run goes on from the one before"
    if config and not workdir.begun:
        check_ancestor(config)
    return OK, words


def steps(workdir: Workdir) -> list[int]:
    """Those that are saved."""
    return sorted(int(path.name) for path in workdir.checkpoints.glob("[0-9]*") if path.name.isdecimal())


def _progress(workdir: Workdir, config: Config) -> str:
    saved, final = steps(workdir), workdir.final()
    what = f"a run on {config.data.name}"
    if final:
        return f"holds {what} that is finished, at a top-1 error of {100 * final['top1_error']:.1f} %"
    if not saved:
        return f"holds {what} that has saved nothing yet"
    return f"holds {what}, saved at step {saved[-1]} ({len(saved)} checkpoints); the same command goes on"


def _missing(workdir: Workdir) -> str:
    """What the newest checkpoint lacks; whether the rest is whole a run finds out as it reads it."""
    saved = steps(workdir)
    if not saved:
        return ""
    newest = workdir.checkpoints / str(saved[-1])
    lacks = [part for part in PARTS if not (newest / part).is_dir()]
    return f"step {saved[-1]} lacks its {' and '.join(lacks)}" if lacks else ""
