"""The machine itself, and its devices as a run would use them."""

import math
import os
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from alexnet_jax.config.fields import Config
from alexnet_jax.data.archives import OPEN_FILES
from alexnet_jax.data.packed import find_packed
from alexnet_jax.doctor.findings import FIX, OK, WARN, Finding, Judged, check, reason
from alexnet_jax.doctor.folders import checkpoint_bytes
from alexnet_jax.doctor.installed import CUDA, GPU_LIST, version
from alexnet_jax.errors import RefusedError
from alexnet_jax.planning.arithmetic import memory
from alexnet_jax.sharding.platform import simulate_cpu_devices
from alexnet_jax.text import size
from alexnet_jax.training.devices import open_run_mesh

FILES = 256  # that a run opens besides its data: on a CPU 64 are enough, GPUs open some more
LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
TUNABLE = "glibc.malloc.hugetlb=1"
DRIVER = ["nvidia-smi", "--query-gpu=name,driver_version,memory.free", "--format=csv,noheader"]
CONTAINER = ("memory.max", "memory.current")  # bytes that a control group may use, and uses


def gpus() -> bool:
    """Whether the kernel has NVIDIA GPUs, whoever can use them."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def driver() -> Judged:
    """NVIDIA's driver, asked before JAX takes the memory of its GPUs."""
    try:
        done = subprocess.run(DRIVER, capture_output=True, text=True, timeout=60, check=True)
    except subprocess.CalledProcessError as error:
        words = " ".join((error.stdout + error.stderr).split())
        return FIX, f"nvidia-smi fails ({words}): fix the driver, or restart the machine"
    return OK, "; ".join(done.stdout.splitlines())


def large_pages() -> Judged:
    """Whether this process's memory may lie in large pages."""
    allowed = LARGE_PAGES.read_text().partition("[")[2].partition("]")[0]
    asked = TUNABLE in os.environ.get("GLIBC_TUNABLES", "")
    if allowed == "always" or (allowed == "madvise" and asked):
        return OK, f"large ones are given ({allowed})"
    way = f"GLIBC_TUNABLES={TUNABLE}" if allowed == "madvise" else f"to switch them on in {LARGE_PAGES}"
    return WARN, f"no large ones: {way} makes a step on a CPU up to a quarter faster"


def open_files() -> Judged:
    """The limit of open files."""
    soft, hard = (n if n >= 0 else math.inf for n in resource.getrlimit(resource.RLIMIT_NOFILE))
    words = f"{soft} at once, {hard} if asked for"
    if soft < FILES:
        return FIX, f"{words}; a run opens up to {FILES}: ulimit -n {FILES}"
    if hard < OPEN_FILES:
        return WARN, f"{words}; to unpack ImageNet {OPEN_FILES} are needed: ulimit -Hn {OPEN_FILES}"
    return OK, words


def devices(config: Config | None) -> Judged:
    """The devices that JAX computes on."""
    if config and config.mesh.cpu_devices:
        simulate_cpu_devices(config.mesh.cpu_devices)
    try:
        found = jax.devices()
    except AssertionError as error:  # JAX's way to say that none of the platforms is here
        chosen = jax.config.jax_platforms
        raise RefusedError(f"JAX_PLATFORMS={chosen} names no platform that is here: unset it") from error
    words = f"{len(found)} x {found[0].device_kind} ({found[0].platform})"
    if found[0].platform == "cpu" and gpus() and not (config and config.mesh.cpu_devices):
        return _gpu_not_used(words)
    return OK, words


def _gpu_not_used(words: str) -> Judged:
    """Why JAX does not use a GPU that is there, and what to do."""
    words += ", but there is an NVIDIA GPU"
    if chosen := jax.config.jax_platforms:
        return WARN, f"{words}, which JAX_PLATFORMS={chosen} keeps from JAX"
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return WARN, f"{words}, which CUDA_VISIBLE_DEVICES hides"
    if not any(map(version, CUDA)):
        return FIX, f"{words}, and jax is the CPU build: pip install -r {GPU_LIST}"
    try:
        jax.devices("cuda")
    except RuntimeError as error:
        words += f" ({reason(error)})"
    return FIX, f"{words}: pip install -U -r {GPU_LIST}"


def mesh_shape(config: Config) -> Judged:
    """The mesh that a run of this config has here."""
    there, wanted = len(jax.devices()), config.mesh.data * config.mesh.tower
    if jax.devices()[0].platform != "cpu" and wanted > there:
        return WARN, f"the config asks for {wanted} devices, {there} are here: for several hosts it fits"
    opened, _ = open_run_mesh(config)
    data, tower = opened.devices.shape
    idle = there - opened.size
    return (WARN if idle else OK), f"{data} x {tower} (data x tower), {idle} of {there} devices idle"


def host_memory(config: Config | None) -> Judged:
    """The memory of this machine, and of its devices where they have their own."""
    free, words = memory_free()
    if config is None:
        return OK, words
    shape = open_run_mesh(config)[0].devices.shape
    each, certain = memory(config, *shape), checkpoint_bytes(config)
    own = [(device.memory_stats() or {}).get("bytes_limit", math.inf) for device in jax.local_devices()]
    need = each * math.prod(shape) if jax.devices()[0].platform == "cpu" else certain
    words += f"; about {size(need)} needed, and up to {config.data.keep_mib} MiB for pictures that stay"
    if min(own) < each:
        needs = f"{size(min(own))} on a device, about {size(each)} needed"
        return WARN, f"{needs}: lower --config.train.batch_size"
    if free < certain:
        return FIX, f"{words}: end other programs, or take a smaller network"
    if free < need + config.data.keep_mib * 2**20:
        return WARN, f"{words}: lower --config.train.batch_size or --config.data.keep_mib"
    return OK, words


def memory_free(root: Path = Path("/")) -> tuple[float, str]:
    """Bytes that programs may still have, here and in this container."""
    if not (root / "proc/meminfo").exists():
        return math.inf, "what is free is not known on this system"
    facts = dict(line.split(":") for line in (root / "proc/meminfo").read_text().splitlines())
    free, whole = (int(facts[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
    most, used = (root / "sys/fs/cgroup" / name for name in CONTAINER)
    if most.exists() and (limit := most.read_text().strip()).isdecimal():
        left = int(limit) - int(used.read_text())
        if left < free:
            return left, f"{size(left)} free of {size(int(limit))} that this container may use"
    return free, f"{size(free)} of {size(whole)} free"


def tensorflow() -> Judged:
    """TensorFlow reads data, and must leave the GPU to JAX."""
    import tensorflow as tf

    from alexnet_jax.data.batches import leave_gpus

    leave_gpus()
    if left := tf.config.get_visible_devices("GPU"):
        return FIX, f"{tf.__version__} takes {len(left)} GPUs that belong to JAX: pip install tensorflow-cpu"
    return OK, f"{tf.__version__} has no GPU"


def pictures(config: Config) -> Judged:
    """The first and the last picture of each split."""
    from alexnet_jax.data.batches import PackedSet

    start, packed = time.perf_counter(), PackedSet(find_packed(config.data).path)
    for split, count in packed.pictures.items():
        packed.read(split, np.array([0, count - 1]))
    return OK, f"{config.data.name} can be read, in {time.perf_counter() - start:.2f} s"


def machine(config: Config | None) -> Iterator[Finding]:
    """Devices and what needs them; what takes seconds comes last."""
    # A run that is at work on the same GPU keeps what it has.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    yield (found := check("devices", devices, config))
    if found.verdict != FIX:
        if config:
            yield check("mesh", mesh_shape, config)
        yield check("memory", host_memory, config)
    yield check("tensorflow", tensorflow)
