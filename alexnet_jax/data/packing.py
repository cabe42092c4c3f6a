"""Packs a data set once: all that the paper's recipe does to a picture before it is cropped.

A packed set is a TFDS data set in a random-access format (`tfds.builder_from_directory` opens it), with the
statistics of its training split beside it. Its files are written by as many processes as there are cores, on
as many hosts as share the work; each leaves notes when it is whole, by which interrupted packing goes on. The
last to finish writes the marker that makes a folder of files a packed set.
"""

import contextlib
import hashlib
import itertools
import json
import math
import os
import shutil
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds
from etils import epath
from filelock import FileLock

from alexnet_jax.config.fields import DataConfig
from alexnet_jax.data import workers
from alexnet_jax.data.archives import first_there
from alexnet_jax.data.packed import (
    BAD_PICTURES,
    MAKING,
    MARKER,
    STATISTICS,
    check_writable,
    contents,
    packed_path,
)
from alexnet_jax.data.progress import Progress
from alexnet_jax.data.shards import Notes, PackedForm, Shard, replacing, write_shard
from alexnet_jax.data.sources import SPLITS, DrawnSource, Source
from alexnet_jax.data.statistics import PixelStatistics, PixelSums
from alexnet_jax.data.toyshapes import SUBJECTS
from alexnet_jax.errors import Interrupted, RefusedError
from alexnet_jax.text import first_line

JOB = "job.json"
SHARD_BYTES = 2**30
LEAST_SHARDS = 16  # of a split that is large enough, so that small sets are packed by many processes too
LEAST_PICTURES = 200  # of a file, else


@dataclass(frozen=True)
class Packing:
    """The files that a packed set will have; the same wherever and whenever it is made."""

    source: Source
    form: PackedForm
    target: epath.Path
    shards: tuple[Shard, ...]

    @property
    def job(self) -> dict[str, Any]:
        """The facts that must be the same for a half-made set to be resumed."""
        return {
            "source": self.source.identity,
            "counts": dict(self.source.counts),
            "form": asdict(self.form),
            "files": [shard.file_name for shard in self.shards],
        }

    def waiting(self) -> list[Shard]:
        """The files that are not yet whole."""
        there = {file.name for file in (self.target / MAKING).glob("*.npz")}
        return [shard for shard in self.shards if shard.notes_path.name not in there]

    def whole(self) -> bool:
        """Whether it is a packed set."""
        return (self.target / MARKER).exists()

    def bytes(self, shards: list[Shard]) -> int:
        """About what some files will take."""
        return round(sum(shard.last - shard.first for shard in shards) * self.form.picture_bytes)


@dataclass(frozen=True)
class Work:
    """Settings of packing that leave no trace in what is packed."""

    processes: int = 1  # 1 stands for this one
    share: tuple[int, int] = (0, 1)  # this host's number, and how many hosts there are
    most_bad: float = 0.001  # of all pictures
    asked: Callable[[], bool] = lambda: False  # whether to stop


def pack_toyshapes(config: DataConfig) -> None:
    """Draws and packs toyshapes where a config finds none."""
    target = packed_path(config)
    if (target / MARKER).exists():
        return
    check_writable(target.parent)
    # One process of this machine packs, the others wait.
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    with contextlib.nullcontext() if "://" in os.fspath(target) else lock:
        if (target / MARKER).exists():
            return
        print(f"packing {config.name} at {config.size} x {config.size} into {target}, once", flush=True)
        source = DrawnSource(config.name, SUBJECTS[config.name])
        # In this process: they are packed sooner than others could start.
        pack(plan_packing(source, PackedForm(config.size, config.encoding), target), Work())


def plan_packing(source: Source, form: PackedForm, target: epath.Path) -> Packing:
    """The files of a set: about `SHARD_BYTES` each, more and smaller ones for a small set."""
    shards = []
    for split in SPLITS:
        images = source.counts[split]
        by_size = math.ceil(images * form.picture_bytes / SHARD_BYTES)
        count = max(1, by_size, min(LEAST_SHARDS, images // LEAST_PICTURES))
        template = _template(source, target).replace(split=split)
        edges = [images * i // count for i in range(count + 1)]
        for i, (first, last) in enumerate(itertools.pairwise(edges)):
            name = template.sharded_filepath(shard_index=i, num_shards=count).name
            shards.append(Shard(os.fspath(target), name, split, first, last))
    return Packing(source, form, target, tuple(shards))


def check_space(plan: Packing) -> None:
    """Refuses a disk that is too small for what is still to be packed; a bucket has no end."""
    if "://" in os.fspath(plan.target):
        return
    need, free = plan.bytes(plan.waiting()), shutil.disk_usage(first_there(plan.target)).free
    if need > free:
        raise RefusedError(
            f"{plan.target} needs about {need / 1e9:.1f} GB and has {free / 1e9:.1f}: make room, choose "
            "another --data_dir, or take a sixth with --encoding=jpeg"
        )


def pack(plan: Packing, work: Work) -> bool:
    """Writes this host's share of the files; the last host to finish makes them a set: True if it is one."""
    try:
        return plan.whole() or _pack(plan, work)
    except FileNotFoundError:
        if plan.whole():  # another host was faster, and has cleared away what this one was at
            return True
        raise


def _pack(plan: Packing, work: Work) -> bool:
    _begin(plan)
    waiting = plan.waiting()
    todo = [shard for shard in plan.shards[work.share[0] :: work.share[1]] if shard in waiting]
    bad = [entry for shard in plan.shards if shard not in waiting for entry in _notes(shard).bad]
    stopped = _write(plan, work, todo, bad)
    left, of = len(plan.waiting()), len(plan.shards)
    if stopped:
        raise Interrupted(f"stopped, {of - left} of {of} files are packed; the same command goes on")
    if not left:
        _commit(plan, work)
    return plan.whole()


def _write(plan: Packing, work: Work, todo: list[Shard], bad: list[dict[str, str]]) -> bool:
    """Writes files until all are whole; true if it was asked to stop before."""
    stopped = False
    tasks = [(shard, plan.source.part(shard.split, shard.first, shard.last), plan.form) for shard in todo]
    with (
        Progress("packing", sum(shard.last - shard.first for shard in todo)) as progress,
        contextlib.closing(workers.run_tasks(write_shard, tasks, work.processes)) as messages,
    ):
        try:
            for message in messages:
                if isinstance(message, dict):
                    bad.append(message)
                    _check_bad(plan, work, bad)
                else:
                    progress.update(message)
                if stopped := work.asked():
                    break
        except BrokenProcessPool as error:
            stopped = work.asked()  # the signal that stops this process has ended those that it started
            if not stopped:
                advice = "the same command goes on, --processes=N takes fewer"
                raise RefusedError(f"a process was killed, perhaps for want of memory; {advice}") from error
        except (OSError, tf.errors.OpError) as error:
            if plan.whole():  # another process was at it too, and has put its notes away
                return False
            raise RefusedError(
                f"packing stopped: {first_line(error)}; once that is fixed the same command goes on"
            ) from error
    return stopped


def _begin(plan: Packing) -> None:
    """Notes what is being made, or finds that it is the same."""
    note = plan.target / MAKING / JOB
    note.parent.mkdir(parents=True, exist_ok=True)
    if not note.exists():
        with replacing(note) as local:
            local.write_text(json.dumps(plan.job))
    before = json.loads(note.read_text())
    now, before = (job["form"] | job for job in (plan.job, before))
    for name, value in now.items():
        if name != "form" and before.get(name) != value:
            raise RefusedError(
                f"{plan.target} is half made with another {name} (it was {before.get(name)!s:.80}, and is "
                f"now {value!s:.80}): delete it to start anew"
            )


def _commit(plan: Packing, work: Work) -> None:
    """Makes whole files a packed set; its marker comes last."""
    notes = {shard: _notes(shard) for shard in plan.shards}
    bad = [entry for note in notes.values() for entry in note.bad]
    _check_bad(plan, work, bad)
    sums = PixelSums(plan.form.size)
    for note in notes.values():
        if note.sums is not None:
            sums.merge(note.sums)
    statistics = sums.statistics()
    with replacing(plan.target / STATISTICS) as local:
        statistics.save(local)
    _write_metadata(plan, notes)
    facts = _facts(plan, notes)
    with replacing(plan.target / "README.md") as local:
        local.write_text(_card(plan, facts, statistics))
    with replacing(plan.target / MARKER) as local:
        local.write_text(json.dumps(facts, indent=1) + "\n")
    (plan.target / MAKING).rmtree(missing_ok=True)
    for leftover in plan.target.glob(".*"):  # of processes that were killed
        leftover.unlink(missing_ok=True)


def _facts(plan: Packing, notes: dict[Shard, Notes]) -> dict[str, Any]:
    """The contents of the marker."""
    converted: dict[str, int] = {}
    for note in notes.values():
        for kind, count in note.converted.items():
            converted[kind] = converted.get(kind, 0) + count
    splits = {
        split: {
            "pictures": sum(note.rows for shard, note in notes.items() if shard.split == split),
            "files": {
                shard.file_name: {"rows": note.rows, "digest": note.digest}
                for shard, note in notes.items()
                if shard.split == split
            },
        }
        for split in SPLITS
    }
    return {
        "name": plan.source.name,
        "source": plan.source.identity,
        "form": asdict(plan.form),
        "classes": len(plan.source.class_names),
        "left_out": sum(len(note.bad) for note in notes.values()),
        "converted": converted,
        "digest": hashlib.blake2b(json.dumps(splits).encode(), digest_size=16).hexdigest(),
        "splits": splits,
    }


def _write_metadata(plan: Packing, notes: dict[Shard, Notes]) -> None:
    template = _template(plan.source, plan.target)
    splits = []
    for split in SPLITS:
        mine = [shard for shard in plan.shards if shard.split == split]
        splits.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[notes[shard].rows for shard in mine],
                num_bytes=sum(shard.path.stat().length for shard in mine),
                filename_template=template.replace(split=split),
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=plan.target,
        features=plan.form.features(plan.source.class_names),
        split_infos=splits,
        filename_template=template,
        description=f"{plan.source.origin}: {plan.form.words}",
        check_data=False,
    )


def _card(plan: Packing, facts: dict[str, Any], statistics: PixelStatistics) -> str:
    """A README for a person who finds the folder."""
    values = statistics.eigenvalues
    lines = [
        f"# {plan.source.name}, packed",
        "",
        f"- {contents(facts)}",
        f"- source: {plan.source.origin} ({plan.source.identity})",
        f"- form: {plan.form.words}; shorter side first, by area averages, never warped",
        f"- converted: {facts['converted'] or 'none'}; left out: {facts['left_out']}",
        f"- digest of all rows: {facts['digest']}",
        f"- mean colour {statistics.mean.mean(axis=(0, 1)).round(3).tolist()}, deviations along the "
        f"principal components {(values**0.5).round(3).tolist()}, on 0-255; {STATISTICS} has the rest",
        "",
        "It is a TFDS data set: `tfds.builder_from_directory(FOLDER)` opens it.",
    ]
    return "\n".join(lines) + "\n"


def _check_bad(plan: Packing, work: Work, bad: list[dict[str, str]]) -> None:
    """Keeps the list of what is left out, and stops where it is too long."""
    if not bad:
        return
    listed = plan.target / BAD_PICTURES
    with replacing(listed) as local:
        entries = sorted(bad, key=lambda entry: (entry["split"], entry["file_name"]))
        local.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    pictures = sum(plan.source.counts.values())
    most = math.floor(work.most_bad * pictures)
    if len(bad) > most:
        raise RefusedError(
            f"{len(bad)} of {pictures} pictures so far cannot be used, and {most} may be left out, such as "
            f"{bad[-1]['file_name']} ({bad[-1]['why']}); {listed} lists them: fix them, or allow more than "
            f"--most_bad={work.most_bad:g}"
        )


def _template(source: Source, target: epath.Path) -> tfds.core.ShardedFileTemplate:
    name = "".join(c if c.isalnum() else "_" for c in source.name)
    return tfds.core.ShardedFileTemplate(data_dir=target, dataset_name=name, filetype_suffix="array_record")


def _notes(shard: Shard) -> Notes:
    return Notes.load(shard.notes_path)
