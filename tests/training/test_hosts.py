"""The same global batches on any number of processes, and after any interruption."""

import hashlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath

from alexnet_jax.config.fields import DataConfig
from alexnet_jax.data.batches import PackedSet, TrainingOrder
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.sharding.platform import simulate_cpu_devices
from alexnet_jax.training.feed import feed
from tests.commands.running import ROOT, STARTED

STEPS = 9  # batches of 16 from 40 pictures: three and a half epochs

Rows = dict[int, str]  # a digest of the picture in each row of a batch
Cases = list[tuple[int, int, int]]  # data, tower, first step


def read(path: Path, cases: Cases) -> Iterator[tuple[int, int, Rows]]:
    """The rows that this process reads in each case, step by step."""
    packed = PackedSet(epath.Path(path))
    config = DataConfig("few", 72, "raw", "", read_ahead=2, threads=2, keep_mib=0, trace=False)
    order = TrainingOrder(seed=7, images=40, batch_size=16)
    for case, (data, tower, first) in enumerate(cases):
        batches = feed(packed, "train", order, range(first, STEPS), make_mesh(data, tower), config)
        for step, batch in enumerate(batches, first):
            rows: Rows = {}
            for piece in batch.pictures.addressable_shards:
                start = piece.index[0].indices(16)[0]
                for i, picture in enumerate(np.asarray(piece.data), start):
                    digest = hashlib.blake2b(picture.tobytes(), digest_size=8).hexdigest()
                    assert rows.setdefault(i, digest) == digest  # every tower sees the same picture
            yield case, step, rows


def one_of_four(path: str, cases: str, number: int, port: int) -> None:
    """A process that prints what it reads."""
    simulate_cpu_devices(1)
    jax.distributed.initialize(f"localhost:{port}", 4, number)
    for found in read(Path(path), json.loads(cases)):
        print(json.dumps(found), flush=True)


def together(heard: Iterable[tuple[int, int, Rows]], cases: Cases) -> list[dict[int, list[str]]]:
    """For each case the pictures of every global batch, put together from what every process has read."""
    found: list[dict[int, Rows]] = [{} for _ in cases]
    for case, step, rows in heard:
        for row, digest in rows.items():
            assert found[case].setdefault(step, {}).setdefault(int(row), digest) == digest
    assert all(sorted(rows) == list(range(16)) for steps in found for rows in steps.values())
    return [{step: [rows[i] for i in range(16)] for step, rows in steps.items()} for steps in found]


@pytest.fixture(scope="module")
def alone(packed_path: Path) -> list[dict[int, list[str]]]:
    """By one process, from the first step on and from another."""
    cases = [(1, 2, 0), (2, 1, 4)]
    return together(read(packed_path, cases), cases)


@pytest.mark.slow
def test_four_processes(packed_path: Path, alone: list[dict[int, list[str]]]) -> None:
    """Real ones on JAX's distributed runtime; a pair of towers in two of them loads the same rows."""
    cases = [(4, 1, 0), (2, 2, 0)]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    program = "import sys; from tests.training.test_hosts import one_of_four; "
    program += "one_of_four(*sys.argv[1:3], *map(int, sys.argv[3:]))"
    words = [sys.executable, "-c", program, str(packed_path), json.dumps(cases)]
    started = [
        subprocess.Popen(
            [*words, str(number), str(port)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    STARTED.extend(started)
    heard = []
    for process in started:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        heard += map(json.loads, out.splitlines())
    assert together(heard, cases) == [alone[0], alone[0]]


def test_from_a_step_on(alone: list[dict[int, list[str]]]) -> None:
    whole, resumed = alone
    assert resumed == {step: whole[step] for step in range(4, STEPS)}


def test_every_picture_once_in_an_epoch(alone: list[dict[int, list[str]]]) -> None:
    """And every epoch in another order."""
    stream = [digest for step in range(STEPS) for digest in alone[0][step]]
    epochs = [tuple(stream[i : i + 40]) for i in range(0, 120, 40)]
    assert all(len(set(epoch)) == 40 for epoch in epochs)
    assert len(set(epochs)) == 3 and len({frozenset(epoch) for epoch in epochs}) == 1
