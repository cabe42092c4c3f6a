"""The same global batches on any number of processes, and after any interruption."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.run.commands import ROOT

STEPS = 9  # batches of 16 from 40 pictures: three and a half epochs

# What each process reads: for every step, its rows of the batch and a digest of each one's picture.
READING = """
import hashlib, json, sys
import jax, numpy as np
from etils import epath
from alexnet_jax.config import DataConfig
from alexnet_jax.data.batches import PackedSet, TrainingOrder
from alexnet_jax.mesh import make_mesh, simulate_cpu_devices
from alexnet_jax.run.feed import feed

path, cases, (processes, number, port, last) = sys.argv[1], json.loads(sys.argv[2]), map(int, sys.argv[3:])
simulate_cpu_devices(4 // processes)
if processes > 1:
    jax.distributed.initialize(f"localhost:{port}", processes, number)
packed = PackedSet(epath.Path(path))
config = DataConfig("few", 72, "raw", "", read_ahead=2, threads=2, keep_mib=0, trace=False)
order = TrainingOrder(seed=7, images=40, batch_size=16)
for case, (data, tower, first) in enumerate(cases):
    batches = feed(packed, "train", order, range(first, last), make_mesh(data, tower), config)
    for step, batch in enumerate(batches, first):
        rows = {}
        for piece in batch.pictures.addressable_shards:
            start = piece.index[0].indices(16)[0]
            for i, picture in enumerate(np.asarray(piece.data), start):
                digest = hashlib.blake2b(picture.tobytes(), digest_size=8).hexdigest()
                assert rows.setdefault(i, digest) == digest  # every tower sees the same picture
        print(json.dumps([case, step, rows]), flush=True)
"""


def batches(path: Path, processes: int, *cases: tuple[int, int, int]) -> list[dict[int, list[str]]]:
    """For each case of data, tower and first step: the pictures of each global batch, put together from what
    every process has read.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", READING, str(path), json.dumps(cases), *map(str, numbers)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for numbers in ((processes, number, port, STEPS) for number in range(processes))
    ]
    found: list[dict[int, dict[int, str]]] = [{} for _ in cases]
    for process in started:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        for line in out.splitlines():
            case, step, rows = json.loads(line)
            for row, digest in rows.items():
                assert found[case].setdefault(step, {}).setdefault(int(row), digest) == digest
    assert all(sorted(rows) == list(range(16)) for steps in found for rows in steps.values())
    return [{step: [rows[i] for i in range(16)] for step, rows in steps.items()} for steps in found]


@pytest.fixture(scope="module")
def alone(packed_path: Path) -> list[dict[int, list[str]]]:
    """By one process, from the first step on and from another."""
    return batches(packed_path, 1, (1, 2, 0), (2, 1, 4))


@pytest.mark.parametrize("processes", [2, 4])
def test_any_number_of_processes(
    packed_path: Path, alone: list[dict[int, list[str]]], processes: int
) -> None:
    """Real processes on JAX's distributed runtime; a pair of towers in two of them loads the same rows."""
    assert batches(packed_path, processes, (4, 1, 0), (2, 2, 0)) == [alone[0], alone[0]]


def test_from_a_step_on(alone: list[dict[int, list[str]]]) -> None:
    whole, resumed = alone
    assert resumed == {step: whole[step] for step in range(4, STEPS)}


def test_every_picture_once_in_an_epoch(alone: list[dict[int, list[str]]]) -> None:
    """And every epoch in another order."""
    stream = [digest for step in range(STEPS) for digest in alone[0][step]]
    epochs = [tuple(stream[i : i + 40]) for i in range(0, 120, 40)]
    assert all(len(set(epoch)) == 40 for epoch in epochs)
    assert len(set(epochs)) == 3 and len({frozenset(epoch) for epoch in epochs}) == 1
