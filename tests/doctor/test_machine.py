"""The machine and its devices, on eight simulated ones and with pretended files of the kernel."""

import dataclasses
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import pytest

from alexnet_jax.config.fields import Config
from alexnet_jax.data.archives import OPEN_FILES
from alexnet_jax.doctor import machine
from alexnet_jax.doctor.findings import FIX, OK, WARN, check
from alexnet_jax.planning.arithmetic import memory
from alexnet_jax.text import size


@pytest.fixture
def nvidia(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[str, str]]:
    """The finding where a program answers as NVIDIA's does."""

    def ask(script: str) -> tuple[str, str]:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
        return machine.driver()

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return ask


def test_the_driver(nvidia: Callable[[str], tuple[str, str]]) -> None:
    line = "NVIDIA H100 80GB HBM3, 550.54.15, 81000 MiB"
    assert nvidia(f"echo '{line}'; echo '{line}'") == (OK, f"{line}; {line}")
    verdict, words = nvidia("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    assert verdict == FIX
    assert "Failed to initialize NVML: Driver/library version mismatch): fix the driver" in words


def test_a_gpu_that_is_not_used(monkeypatch: pytest.MonkeyPatch, narrow: Config) -> None:
    """Because somebody wants it so, or because of what is installed."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(machine, "gpus", lambda: True)
    start = "8 x cpu (cpu), but there is an NVIDIA GPU"
    assert machine.devices(None) == (WARN, f"{start}, which JAX_PLATFORMS=cpu keeps from JAX")
    monkeypatch.setattr(machine, "simulate_cpu_devices", lambda _: None)
    simulated = dataclasses.replace(narrow, mesh=dataclasses.replace(narrow.mesh, cpu_devices=8))
    assert machine.devices(simulated) == (OK, "8 x cpu (cpu)")
    jax.config.update("jax_platforms", None)
    try:
        monkeypatch.setattr(machine, "CUDA", ())
        assert machine.devices(None)[1].endswith("jax is the CPU build: pip install -r requirements.txt")
        monkeypatch.setattr(machine, "CUDA", ("jax",))
        assert " (RuntimeError: " in machine.devices(None)[1]
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
        assert machine.devices(None) == (WARN, f"{start}, which CUDA_VISIBLE_DEVICES hides")
    finally:
        jax.config.update("jax_platforms", "cpu")


def test_the_mesh(narrow: Config) -> None:
    assert machine.mesh_shape(narrow) == (OK, "4 x 2 (data x tower), 0 of 8 devices idle")
    two = dataclasses.replace(narrow, mesh=dataclasses.replace(narrow.mesh, data=1, tower=2))
    assert machine.mesh_shape(two) == (WARN, "1 x 2 (data x tower), 6 of 8 devices idle")
    odd = dataclasses.replace(narrow, train=dataclasses.replace(narrow.train, batch_size=10))
    found = check("mesh", machine.mesh_shape, odd)
    assert found.verdict == FIX
    assert "train.batch_size=10 does not divide over the mesh's 4 data rows" in found.words


def pretended(root: Path, available: int, most: object = None, used: int = 0) -> Path:
    """The files of a machine of 64 GB in which the kernel says how much memory is free."""
    for folder in ("proc", "sys/fs/cgroup"):
        (root / folder).mkdir(parents=True)
    lines = ["MemTotal:  62500000 kB", "MemFree:  1 kB", f"MemAvailable: {available // 1024} kB"]
    (root / "proc" / "meminfo").write_text("\n".join([*lines, "HugePages_Total:  0\n"]))
    if most is not None:
        (root / "sys/fs/cgroup/memory.max").write_text(f"{most}\n")
        (root / "sys/fs/cgroup/memory.current").write_text(f"{used}\n")
    return root


def test_free_memory(tmp_path: Path) -> None:
    """The memory of the machine, or of a container."""
    whole = (40_000_000_000 // 1024 * 1024, "40.0 GB of 64.0 GB free")
    for number, (group, wanted) in enumerate(
        [
            ((), whole),
            (("max", 5), whole),
            ((60 * 10**9, 10**9), whole),
            ((4 * 10**9, 10**9), (3 * 10**9, "3.0 GB free of 4.0 GB that this container may use")),
        ]
    ):
        assert machine.memory_free(pretended(tmp_path / str(number), 40 * 10**9, *group)) == wanted


@pytest.mark.parametrize(
    ("free", "verdict", "words"),
    [
        (50e9, OK, "for pictures that stay"),
        (1e9, WARN, "lower --config.train.batch_size"),
        (0.4e9, FIX, "end other programs"),
    ],
)
def test_memory(
    free: float, verdict: str, words: str, paper: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less than weights and velocity cannot do; what a step needs is known roughly."""
    monkeypatch.setattr(machine, "memory_free", lambda: (free, f"{free} free"))
    config = dataclasses.replace(paper, train=dataclasses.replace(paper.train, batch_size=128))
    found = machine.host_memory(config)
    assert found[0] == verdict
    assert words in found[1]
    assert f"about {size(8 * memory(config, 4, 2))} needed, and up to 512 MiB" in found[1]


def test_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, hard, verdict, words in (
        (machine.FILES - 1, 9999, FIX, f"a run opens up to {machine.FILES}: ulimit -n {machine.FILES}"),
        (machine.FILES, 1000, WARN, f"to unpack ImageNet {OPEN_FILES} are needed: ulimit -Hn {OPEN_FILES}"),
        (-1, -1, OK, "inf at once"),
    ):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limits=(soft, hard): limits)
        found = machine.open_files()
        assert found[0] == verdict and words in found[1]


@pytest.mark.parametrize(
    ("kernel", "tunables", "verdict", "words"),
    [
        ("[always] madvise never", "", OK, "given (always)"),
        ("always [madvise] never", "a.b=1:glibc.malloc.hugetlb=1", OK, "given (madvise)"),
        ("always [madvise] never", "", WARN, "GLIBC_TUNABLES=glibc.malloc.hugetlb=1 makes a step on a CPU"),
        ("always madvise [never]", "glibc.malloc.hugetlb=1", WARN, "to switch them on in"),
    ],
)
def test_large_pages(
    kernel: str, tunables: str, verdict: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "enabled").write_text(kernel + "\n")
    monkeypatch.setattr(machine, "LARGE_PAGES", tmp_path / "enabled")
    monkeypatch.setenv("GLIBC_TUNABLES", tunables)
    found = machine.large_pages()
    assert found[0] == verdict
    assert words in found[1]


def test_tensorflow() -> None:
    """TensorFlow has no GPU after it."""
    assert machine.tensorflow()[0] == OK


def test_pictures(packed_path: Path, narrow: Config, tmp_path: Path) -> None:
    """They can be read, or which of them cannot."""
    folder = tmp_path / "packed" / "toyshapes-72-raw"
    shutil.copytree(packed_path, folder)
    data = dataclasses.replace(narrow.data, name="toyshapes", dir=str(tmp_path))
    config = dataclasses.replace(narrow, data=data)
    assert machine.pictures(config)[1].startswith("toyshapes can be read")
    damaged = next(folder.glob("*validation*"))
    damaged.write_bytes(bytes(damaged.stat().st_size))
    found = check("pictures", machine.pictures, config)
    assert found.verdict == FIX
    assert "the validation pictures in" in found.words
    (folder / "features.json").write_text("{")
    assert "while reading its dataset_info.json" in check("pictures", machine.pictures, config).words
