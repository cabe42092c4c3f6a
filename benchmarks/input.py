"""The speed of packing and reading, side by side: .venv/bin/python -m benchmarks.input

Pictures of 500 x 375 pixels, drawn here, as JPEGs of about ImageNet's size. In turn, on the same cores:
plain tf.data (decode, resize, crop from the JPEGs), a loader in PyTorch's manner (Pillow, two worker
processes), and ours from packed sets; then training steps on what was read against steps on a batch that is
at hand.
"""

import argparse
import io
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

# As the commands do, before anything imports TensorFlow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import jax
import numpy as np
import tensorflow as tf
from etils import epath
from PIL import Image

from alexnet_jax.config.building import build
from alexnet_jax.config.fields import Config, DataConfig
from alexnet_jax.data import workers
from alexnet_jax.data.batches import PackedSet, TrainingOrder, read_batches
from alexnet_jax.data.packed import MAKING
from alexnet_jax.data.packing import Work, pack, plan_packing
from alexnet_jax.data.shards import PackedForm, write_shard
from alexnet_jax.data.sources import FolderSource
from alexnet_jax.learning.schedule import Pace
from alexnet_jax.learning.state import init_state
from alexnet_jax.learning.step import make_train_step, no_totals
from alexnet_jax.sharding.mesh import open_mesh
from alexnet_jax.storage.facts import device_pixels
from alexnet_jax.training.feed import feed
from configs import imagenet, quickstart

SIZE, BATCH, TURNS, COPIES, LEAST_PICTURES = 256, 50, 5, 5, 200
CORES = os.cpu_count()


def draw(folder: Path, count: int) -> list[str]:
    """Pictures with the detail of photographs, one in ten to validate."""
    rng, paths = np.random.default_rng(0), []
    for i in range(count):
        picture = rng.normal(120, 4, (375, 500, 3))
        for cells in (3, 8, 20, 50, 120):
            shades = rng.uniform(0, 255, (cells, cells, 3)).astype(np.uint8)
            large = Image.fromarray(shades).resize((500, 375), Image.Resampling.BICUBIC)
            picture += (np.asarray(large, float) - 127.5) / 2.5
        path = folder / ("val" if i % 10 == 0 else "train") / f"class{i % 3}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(path, quality=92)
        paths.append(os.fspath(path))
    return paths


def plain(paths: list[str], method: str) -> int:
    """tf.data as in its own guides, on all cores; both ways of shrinking that people choose."""

    def load(path: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        shape = tf.shape(image)[:2]
        scaled = tf.cast(tf.round(shape * SIZE / tf.reduce_min(shape)), tf.int32)
        image = tf.image.resize(image, scaled, method=method)
        top, left = (scaled[0] - SIZE) // 2, (scaled[1] - SIZE) // 2
        return tf.cast(tf.round(image[top : top + SIZE, left : left + SIZE]), tf.uint8)

    data = (
        tf.data.Dataset.from_tensor_slices(paths).map(load, num_parallel_calls=CORES).batch(BATCH).prefetch(2)
    )
    return sum(len(batch) for batch in data.as_numpy_iterator())


def shrink_with_pillow(paths: list[str]) -> np.ndarray:
    squares = []
    for path in paths:
        image = Image.open(io.BytesIO(Path(path).read_bytes())).convert("RGB")
        scale = SIZE / min(image.size)
        image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BILINEAR)
        left, top = ((side - SIZE) // 2 for side in image.size)
        squares.append(np.asarray(image.crop((left, top, left + SIZE, top + SIZE))))
    return np.stack(squares)


def pillow(paths: list[str], pool: ProcessPoolExecutor) -> int:
    """Reads as PyTorch's DataLoader does: each worker process makes whole batches and sends them."""
    batches = [paths[i : i + BATCH] for i in range(0, len(paths), BATCH)]
    return sum(len(batch) for batch in pool.map(shrink_with_pillow, batches))


def ours(packed: PackedSet, passes: int) -> int:
    """From a packed set, shuffled, on all cores."""
    order = TrainingOrder(0, packed.images("train"), BATCH)
    steps = range(passes * packed.images("train") // BATCH)
    read = read_batches(packed, "train", order, steps, np.arange(BATCH), reading())
    return sum(len(batch[0]) for batch in read)


def reading() -> DataConfig:
    return DataConfig("benchmark", SIZE, "raw", "", read_ahead=4, threads=0, keep_mib=0, trace=False)


def rates(tasks: dict[str, Callable[[], int]]) -> dict[str, float]:
    """Pictures a second of each task: medians of turns, after a first that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(TURNS + 1):
        for name, task in tasks.items():
            began = time.perf_counter()
            count = task()
            if turn:
                seconds[name].append((time.perf_counter() - began) / count)
    return {name: 1 / statistics.median(each) for name, each in seconds.items()}


def packing_rates(folder: Path, paths: list[str]) -> dict[str, float]:
    """Pictures a second of packing on all cores, against tf.data that does the same and keeps nothing."""
    root = folder / "copies"
    for path in paths:
        for i in range(COPIES):
            link = root / Path(path).relative_to(folder / "pictures").with_stem(f"{Path(path).stem}-{i}")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    source = FolderSource("benchmark", epath.Path(root))

    def plainly(method: str) -> float:
        began = time.perf_counter()
        return plain(COPIES * paths, method) / (time.perf_counter() - began)

    found: dict[str, list[float]] = {}
    for _ in range(TURNS):
        for encoding, method in (("raw", "area"), ("jpeg", "bilinear")):
            with tempfile.TemporaryDirectory(dir=folder) as target:
                rate = packing_rate(source, PackedForm(SIZE, encoding), epath.Path(target))
            found.setdefault(f"ours, {encoding}", []).append(rate)
            found.setdefault(f"tf.data, {method}", []).append(plainly(method))
    return {name: statistics.median(each) for name, each in found.items()}


def packing_rate(source: FolderSource, form: PackedForm, target: epath.Path) -> float:
    """From the first tenth to the last: a set of any size takes the same time to start."""
    (target / MAKING).mkdir()
    shards = plan_packing(source, form, target).shards
    tasks = [(shard, source.part(shard.split, shard.first, shard.last), form) for shard in shards]
    done, marks, whole = 0, [], sum(source.counts.values())
    for message in workers.run_tasks(write_shard, tasks, CORES):
        done += message
        if 0.1 * whole <= done <= 0.9 * whole:
            marks.append((time.perf_counter(), done))
    (began, first), (ended, last) = marks[0], marks[-1]
    return (last - first) / (ended - began)


def step_speeds(config: Config, path: epath.Path, steps: int, turns: int) -> dict[str, float]:
    """Images a second of training on what is read, after an epoch of it, and on one batch over and over.

    Turn about, and by the median of the turns' ratios: a shared machine's speed wanders by more than what is
    sought. The first steps of a turn do not count: batches were read ahead for them, or are being read.
    """
    packed = PackedSet(path, config.data.keep_mib)
    mesh = open_mesh(config.mesh, config.network.towers)
    step, looks = make_train_step(config, mesh), device_pixels(config.augment, mesh, packed.statistics)
    size, state = config.train.batch_size, init_state(config, mesh)
    order = TrainingOrder(0, packed.images("train"), size)
    batches = feed(packed, "train", order, range(10**6), mesh, config.data)
    held, settling = next(batches), config.data.read_ahead
    for _ in range(packed.images("train") // size):
        next(batches)

    def seconds(real: bool) -> float:
        nonlocal state
        totals = no_totals(mesh)
        for i in range(settling + steps):
            if i == settling:
                began = time.perf_counter()
            before = totals
            state, totals, _ = step(state, totals, looks, next(batches) if real else held, Pace.steady(1e-4))
            jax.block_until_ready(before)
        jax.block_until_ready(totals)
        return time.perf_counter() - began

    pairs = []
    for turn in range(turns + 1):
        real_first = turn % 2 == 0
        found = seconds(real_first), seconds(not real_first)
        pairs.append(found if real_first else found[::-1])
    batches.close()
    synthetic = steps * size / statistics.median(fake for _, fake in pairs[1:])
    return {
        "packed": synthetic * statistics.median(fake / real for real, fake in pairs[1:]),
        "synthetic": synthetic,
    }


def main() -> None:
    """Draws, packs, reads and trains; prints a table and then JSON."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--pictures", type=int, default=600)
    count = arguments.parse_args().pictures
    if count < LEAST_PICTURES:
        arguments.error(f"--pictures={count} are packed before they are timed: at least {LEAST_PICTURES}")
    # The quickstart's two devices; the full network takes one of them.
    small = build(quickstart.get_config().to_dict())
    open_mesh(small.mesh, small.network.towers)
    results: dict[str, dict[str, float]] = {}

    def report(what: str, found: dict[str, float]) -> None:
        results[what] = found
        for kind, rate in found.items():
            print(f"{what:20} {kind:22} {rate:9.1f} images/s", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = draw(folder / "pictures", count)
        source = FolderSource("benchmark", epath.Path(folder / "pictures"))
        report("pack", packing_rates(folder, paths))
        packed = {}
        for form in (PackedForm(SIZE, "raw"), PackedForm(SIZE, "jpeg"), PackedForm(small.data.size, "raw")):
            path = epath.Path(folder / f"{form.size}-{form.encoding}")
            pack(plan_packing(source, form, path), Work())
            packed[form.size, form.encoding] = path
        raw, jpeg = (PackedSet(packed[SIZE, encoding]) for encoding in ("raw", "jpeg"))
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
            tasks = {
                "tf.data, area": lambda: plain(paths, "area"),
                "tf.data, bilinear": lambda: plain(paths, "bilinear"),
                "Pillow, two processes": lambda: pillow(paths, pool),
                "ours, raw": lambda: ours(raw, 4),
                "ours, jpeg": lambda: ours(jpeg, 2),
            }
            report("read", rates(tasks))
        # ImageNet is not kept in memory: neither are these few pictures.
        full = {**imagenet.PAPER, "train": {**imagenet.PAPER["train"], "batch_size": 32}}
        full["data"] = {**imagenet.PAPER["data"], "keep_mib": 0}
        full["mesh"] = {"data": 1, "tower": 1, "cpu_devices": 0}
        report("train, full network", step_speeds(build(full), packed[SIZE, "raw"], steps=4, turns=9))
        tiny = packed[small.data.size, "raw"]
        report("train, quickstart", step_speeds(small, tiny, steps=24, turns=100))
    print(json.dumps({"cores": CORES, "images_per_second": results}))


if __name__ == "__main__":
    main()
