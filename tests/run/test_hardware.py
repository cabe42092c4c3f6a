"""Devices, their memory, what passes between them, and the readers of data, on eight simulated devices."""

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from alexnet_jax.config import Config
from alexnet_jax.planning.arithmetic import memory
from alexnet_jax.run import hardware
from alexnet_jax.run.findings import MEND, OK, WARN, look, size
from alexnet_jax.run.hardware import (
    exchange,
    gpus,
    host_memory,
    memory_free,
    mesh_of,
    pictures,
    tensorflow,
    unseen,
)
from alexnet_jax.sharding.mesh import DATA, make_mesh, shard


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a program that answers as NVIDIA's does."""

    def answer(script: str) -> None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return answer


H100 = "NVIDIA H100 80GB HBM3, 550.54.15, {}, 81559"


def test_gpus(driver: Callable[[str], None]) -> None:
    driver(f"echo '{H100.format(81000)}'")
    found, there = gpus()
    assert there
    assert found.verdict == OK
    assert found.words == "0: NVIDIA H100 80GB HBM3, driver 550.54.15, 81000 of 81559 MiB free"
    driver(f"echo '{H100.format(81000)}'; echo '{H100.format(1000)}'")
    found, there = gpus()
    assert found.verdict == WARN
    assert found.words.endswith("1000 of 81559 MiB free; another program holds more than half of 1")
    driver("echo 'NVIDIA GB10, 580.1, [N/A], [N/A]'")  # shares the machine's memory
    assert gpus()[0].verdict == OK


def test_a_driver_that_fails(driver: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel has no GPU it is no matter: an image for GPUs on a machine without."""
    driver("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    monkeypatch.setattr(hardware, "nvidia_nodes", list)
    found, there = gpus()
    assert not there
    assert found.verdict == WARN
    monkeypatch.setattr(hardware, "nvidia_nodes", lambda: [Path("/dev/nvidia0")])
    found, there = gpus()
    assert there
    assert found.verdict == MEND
    assert "Failed to initialize NVML: Driver/library version mismatch): mend the driver" in found.words


def test_a_gpu_that_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Because somebody wants it so, or because of what is installed."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert unseen("1 x cpu") == (
        WARN,
        "1 x cpu, but there is an NVIDIA GPU, which JAX_PLATFORMS=cpu keeps from JAX",
    )
    with monkeypatch.context() as patch:  # as where nobody has chosen
        patch.setattr(hardware, "platforms", str)
        patch.setattr(hardware, "CUDA", ())
        verdict, words = unseen("1 x cpu")
        assert verdict == MEND
        assert words.endswith("jax is the CPU build: pip install -r requirements.txt")
        patch.setattr(hardware, "CUDA", ("jax",))
        verdict, words = unseen("1 x cpu")
        assert verdict == MEND
        assert "does not get (RuntimeError: " in words
        patch.setenv("CUDA_VISIBLE_DEVICES", "-1")
        assert unseen("1 x cpu") == (
            WARN,
            "1 x cpu, but there is an NVIDIA GPU, which CUDA_VISIBLE_DEVICES=-1 hides",
        )


def test_the_mesh(narrow: Config) -> None:
    assert mesh_of(narrow) == (OK, "4 x 2 (data x tower): the widest tower axis that fits")
    two = dataclasses.replace(narrow, mesh=dataclasses.replace(narrow.mesh, data=1, tower=2))
    assert mesh_of(two) == (WARN, "1 x 2 (data x tower) leaves 6 of 8 devices idle")
    odd = dataclasses.replace(narrow, train=dataclasses.replace(narrow.train, batch_size=10))
    found = look("mesh", mesh_of, odd)
    assert found.verdict == MEND
    assert "train.batch_size=10 does not divide over the mesh's 4 data rows" in found.words


def test_an_exchange() -> None:
    verdict, words = exchange()
    assert verdict == OK
    assert words.endswith("of 1 MiB from each of 8 devices, with the right numbers")


def test_what_is_exchanged() -> None:
    """The programs talk as their names say, once."""
    mesh = make_mesh(8, 1)
    given = jax.device_put(np.zeros((8, 16), np.float32), shard(mesh, jax.sharding.PartitionSpec(DATA)))
    for program, wanted in ((hardware.gather, "all-gather"), (hardware.add, "all-reduce")):
        text = program(mesh).lower(given).compile().as_text()
        kinds = {
            kind: text.count(f" {kind}(") + text.count(f" {kind}-start(")
            for kind in ("all-gather", "all-reduce")
        }
        assert kinds == {"all-gather": 0, "all-reduce": 0} | {wanted: 1}


@pytest.mark.parametrize("name", ["gather", "add"])
def test_an_exchange_that_goes_wrong(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One number of one device."""
    right = getattr(hardware, name)

    def wrong(mesh: jax.sharding.Mesh) -> Callable[[jax.Array], jax.Array]:
        def program(x: jax.Array) -> jax.Array:
            pieces = [piece.data for piece in right(mesh)(x).addressable_shards]
            pieces[5] = pieces[5].at[..., 7].add(1)
            return jax.make_array_from_single_device_arrays(
                pieces[0].shape, shard(mesh, jax.sharding.PartitionSpec()), pieces
            )

        return program

    monkeypatch.setattr(hardware, name, wrong)
    verdict, words = exchange()
    assert verdict == MEND
    assert "over 8 devices comes out wrong on" in words
    assert "5: do not train here" in words


def machine(root: Path, available: int, **files: object) -> Path:
    """The files of a machine of 64 GB in which the kernel says how much memory is free."""
    (root / "proc").mkdir()
    lines = ["MemTotal:  62500000 kB", "MemFree:  1 kB", f"MemAvailable: {available // 1024} kB"]
    (root / "proc" / "meminfo").write_text("\n".join([*lines, "HugePages_Total:  0\n"]))
    for name, value in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return root


def test_free_memory(tmp_path: Path) -> None:
    """What the machine has, or what a container may still use of it, in both versions of control groups."""
    whole = (40_000_000_000 // 1024 * 1024, "40.0 GB of 64.0 GB free")
    for number, (files, wanted) in enumerate(
        [
            ({}, whole),
            ({"memory_DOT_max": "max", "memory_DOT_current": 5}, whole),
            ({"memory_DOT_max": 60 * 10**9, "memory_DOT_current": 10**9}, whole),
            (
                {"memory_DOT_max": 4 * 10**9, "memory_DOT_current": 10**9},
                (3 * 10**9, "3.0 GB free of 4.0 GB that this container may use"),
            ),
            (
                {
                    "memory__memory_DOT_limit_in_bytes": 4 * 10**9,
                    "memory__memory_DOT_usage_in_bytes": 2 * 10**9,
                },
                (2 * 10**9, "2.0 GB free of 4.0 GB that this container may use"),
            ),
            (
                {"memory__memory_DOT_limit_in_bytes": 2**63 - 4096, "memory__memory_DOT_usage_in_bytes": 1},
                whole,
            ),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        assert memory_free(machine(tmp_path / str(number), 40 * 10**9, **files)) == wanted


@pytest.mark.parametrize(
    ("free", "verdict", "words"),
    [
        (50e9, OK, "stay in memory"),
        (1e9, WARN, "lower --config.train.batch_size"),
        (0.4e9, MEND, "end other"),
    ],
)
def test_memory(
    free: float, verdict: str, words: str, paper: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less than weights and velocity cannot do; what a step needs is known roughly."""
    monkeypatch.setattr(hardware, "memory_free", lambda: (free, f"{free} free"))
    config = dataclasses.replace(paper, train=dataclasses.replace(paper.train, batch_size=128))
    found = host_memory(config)
    assert found[0] == verdict
    assert words in found[1]
    assert f"about {size(8 * memory(config, 4, 2))} needed, and up to 537 MB" in found[1]


def test_tensorflow() -> None:
    """As in every reader of data: TensorFlow has no GPU after it."""
    verdict, words = tensorflow()
    assert verdict == OK
    assert "GPU" in words


def test_pictures(packed_path: Path, narrow: Config, tmp_path: Path) -> None:
    """They can be read, or which of them cannot."""
    folder = tmp_path / "packed" / "toyshapes-72-raw"
    shutil.copytree(packed_path, folder)
    config = dataclasses.replace(
        narrow, data=dataclasses.replace(narrow.data, name="toyshapes", dir=str(tmp_path))
    )
    verdict, words = pictures(config)
    assert verdict == OK
    assert words.startswith("toyshapes can be read")
    damaged = next(folder.glob("*validation*"))
    damaged.write_bytes(bytes(damaged.stat().st_size))
    found = look("pictures", pictures, config)
    assert found.verdict == MEND
    assert "is damaged: its validation pictures cannot be read" in found.words
    (folder / "features.json").write_text("{")
    assert "while reading its dataset_info.json" in look("pictures", pictures, config).words
