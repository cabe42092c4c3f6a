"""What a check finds by using the machine: devices, their memory, what passes between them, TensorFlow.

To be run in a process of its own: drivers that are broken end it, or stop it.
"""

import math
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from jax.sharding import PartitionSpec

from alexnet_jax.config import Config
from alexnet_jax.data.packed import find_packed, packed_path
from alexnet_jax.errors import RefusedError
from alexnet_jax.planning.arithmetic import memory
from alexnet_jax.run.findings import MEND, OK, WARN, Answer, Finding, look, reason, size
from alexnet_jax.run.folders import checkpoint_bytes
from alexnet_jax.run.installed import CUDA, GPU_LIST, TPU_LIST, version
from alexnet_jax.run.meshes import open_run_mesh
from alexnet_jax.sharding.mesh import DATA, REPLICATED, make_mesh, shard
from alexnet_jax.sharding.platform import simulate_cpu_devices

MIB = 2**20
NUMBERS = 2**18  # float32, that a device gives to the others: 1 MiB
TIMES = 11
DRIVER = ("nvidia-smi", "--query-gpu=name,driver_version,memory.free,memory.total")
DRIVER += ("--format=csv,noheader,nounits",)
# Bytes that a control group may use, and uses, below its folder: version 2, version 1.
CONTAINER = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


def nvidia_nodes() -> list[Path]:
    """The GPUs that the kernel has, whoever can use them."""
    return sorted(Path("/dev").glob("nvidia[0-9]*"))


def ask_driver() -> list[list[str]]:
    """Name, driver, MiB free and MiB in all of each GPU; none where there is nobody to ask."""
    try:
        done = subprocess.run(DRIVER, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        return []
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode:
        raise RefusedError(" ".join([*lines, done.stderr]).strip() or f"exit code {done.returncode}")
    return [[part.strip() for part in line.split(",")] for line in lines if line.count(",") == 3]


def gpus() -> tuple[Finding | None, bool]:
    """What NVIDIA's driver says, before JAX takes their memory, and whether there is any GPU."""
    nodes = nvidia_nodes()
    try:
        found = ask_driver()
    except (RefusedError, subprocess.SubprocessError, OSError) as error:
        words = f"nvidia-smi fails ({reason(error)}): mend the driver, or restart the machine"
        return Finding("gpu", MEND if nodes else WARN, words), bool(nodes)
    if found:
        return look("gpu", _gpus, found), True
    if nodes:
        return Finding("gpu", WARN, f"{nodes[0]} is there, but no nvidia-smi to ask"), True
    return None, False


def _gpus(found: list[list[str]]) -> Answer:
    listed = [f"{name}, driver {driver}, {free} of {whole} MiB free" for name, driver, free, whole in found]
    words = "; ".join(f"{i}: {line}" for i, line in enumerate(listed))
    for i, (_, _, free, whole) in enumerate(found):
        if (free + whole).isdecimal() and int(free) < int(whole) / 2:
            return WARN, f"{words}; another program holds more than half of {i}"
    return OK, words


def hardware(config: Config | None, gpu: bool) -> Iterator[str | Finding]:
    """Everything that may take seconds, name by name."""
    # A run that is at work on the same GPU keeps what it has.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    yield "devices"
    seen: list[jax.Device] = []
    yield look("devices", devices, config, gpu, seen)
    if seen:
        if config:
            yield "mesh"
            yield look("mesh", mesh_of, config)
        yield "memory"
        yield look("memory", host_memory, config)
        yield "exchange"
        yield look("exchange", exchange)
    yield "tensorflow"
    yield look("tensorflow", tensorflow)
    if config and _packed(config):
        yield "pictures"
        yield look("pictures", pictures, config)


def _packed(config: Config) -> bool:
    try:
        return packed_path(config.data).exists()
    except (RefusedError, OSError):  # `data_sets` has said so
        return False


def devices(config: Config | None, gpu: bool, seen: list[jax.Device]) -> Answer:
    """What JAX computes on, which is added to `seen`."""
    simulated = config.mesh.cpu_devices if config else 0
    if simulated:
        simulate_cpu_devices(simulated)
    try:
        seen += jax.devices()
    except AssertionError as error:  # JAX's way to say that none of the platforms is here
        words = f"JAX_PLATFORMS={platforms()} names no platform that is here: unset it"
        raise RefusedError(words) from error
    platform, kind = seen[0].platform, seen[0].device_kind
    words = f"{len(seen)} x {kind}{f' ({platform})' if kind != platform else ''}"
    if simulated:
        return OK, f"{words}, simulated as mesh.cpu_devices asks{', the GPU is left alone' if gpu else ''}"
    if platform == "cpu" and gpu:
        return unseen(words)
    if platform == "cpu" and any(Path("/dev").glob("accel[0-9]*")) and not version("libtpu"):
        return WARN, f"{words}; for the TPU that seems to be here: pip install -r {TPU_LIST}"
    return OK, words


def platforms() -> str:
    """Those that JAX may use, where somebody has chosen them."""
    return jax.config.jax_platforms or ""


def unseen(words: str) -> Answer:
    """Why JAX does not see a GPU, and what to do."""
    words += ", but there is an NVIDIA GPU"
    chosen = platforms()
    if chosen and "cuda" not in chosen and "gpu" not in chosen:
        return WARN, f"{words}, which JAX_PLATFORMS={chosen} keeps from JAX"
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return WARN, f"{words}, which CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']} hides"
    if not any(map(version, CUDA)):
        return MEND, f"{words}, and jax is the CPU build: pip install -r {GPU_LIST}"
    why = "it is not the first of its platforms"
    try:
        jax.devices("cuda")
    except RuntimeError as error:
        why = reason(error)
    return MEND, f"{words} that JAX does not get ({why}): pip install -U -r {GPU_LIST}"


def mesh_of(config: Config) -> Answer:
    """The mesh that a run of this config has here."""
    there, wanted = jax.devices(), config.mesh.data * config.mesh.tower
    if there[0].platform != "cpu" and wanted > len(there):
        return WARN, f"the config asks for {wanted} devices, {len(there)} are here: for several hosts it fits"
    mesh, why = open_run_mesh(config)
    data, tower = mesh.devices.shape
    idle = len(there) - mesh.size
    if idle:
        return WARN, f"{data} x {tower} (data x tower) leaves {idle} of {len(there)} devices idle"
    return OK, why or f"{data} x {tower} (data x tower), as the config says"


def _shape(config: Config) -> tuple[int, int]:
    """As the config says, also where that is for several hosts, or as a run would choose here."""
    wanted = config.mesh.data, config.mesh.tower
    return wanted if all(wanted) else open_run_mesh(config)[0].devices.shape


def host_memory(config: Config | None) -> Answer:
    """The memory of this machine, and of its devices where they have their own."""
    free, words = memory_free()
    if config is None:
        return OK, words
    shape = _shape(config)
    each, state = memory(config, *shape), checkpoint_bytes(config)
    if jax.devices()[0].platform == "cpu":
        need, certain = each * math.prod(shape), state
    else:
        need = certain = state  # while a checkpoint is written
        limits = [(device.memory_stats() or {}).get("bytes_limit", each) for device in jax.local_devices()]
        words += f"; {size(min(limits))} on a device, about {size(each)} needed"
        if min(limits) < each:
            return WARN, f"{words}: lower --config.train.batch_size"
    kept = config.data.keep_mib * MIB
    words += f"; about {size(need)} needed, and up to {size(kept)} for pictures that stay in memory"
    if free < certain:
        return MEND, f"{words}: end other programs, or take a smaller network"
    if free < need + kept:
        return WARN, f"{words}: end other programs, lower --config.train.batch_size or --config.data.keep_mib"
    return OK, words


def memory_free(root: Path = Path("/")) -> tuple[float, str]:
    """Bytes that programs may still have, here and in this container."""
    if not (root / "proc/meminfo").exists():
        return float("inf"), "what is free is not known on this system"
    facts = dict(line.split(":") for line in (root / "proc/meminfo").read_text().splitlines())
    free, whole = (int(facts[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
    words = f"{size(free)} of {size(whole)} free"
    group = root / "sys/fs/cgroup"
    for most, used in CONTAINER:
        limit = (group / most).read_text().strip() if (group / most).exists() else ""
        left = int(limit) - int((group / used).read_text()) if limit.isdecimal() else free
        if left < free:
            free, words = (
                left,
                f"{size(left)} free of {size(int(limit))} that this container may use",
            )
    return free, words


def exchange() -> Answer:
    """Every device hears what all the others have, and their sum."""
    count = len(jax.devices())
    if count == 1:
        return OK, "one device: there is nobody to exchange with"
    mesh = make_mesh(count, 1)
    numbers = np.arange(count * NUMBERS, dtype=np.float32).reshape(count, NUMBERS) % 1024  # sums are exact
    given = jax.device_put(numbers, shard(mesh, PartitionSpec(DATA)))
    took = []
    for name, program, wanted in (
        ("an all-gather", gather(mesh), numbers),
        ("a sum", add(mesh), numbers.sum(0)),
    ):
        for piece in program(given).addressable_shards:
            if not np.array_equal(piece.data, wanted):
                return (
                    MEND,
                    f"{name} over {count} devices comes out wrong on {piece.device}: do not train here",
                )
        took.append(f"{name} {1e3 * seconds(program, given):.2f} ms")
    return OK, f"{' and '.join(took)}, of 1 MiB from each of {count} devices, with the right numbers"


def gather(mesh: jax.sharding.Mesh) -> Callable[[jax.Array], jax.Array]:
    """Rows that are cut over devices, whole on each of them."""
    return jax.jit(lambda x: x, out_shardings=shard(mesh, REPLICATED))


def add(mesh: jax.sharding.Mesh) -> Callable[[jax.Array], jax.Array]:
    """The sum of rows that are cut over devices, on each of them."""
    return jax.jit(lambda x: x.sum(0), out_shardings=shard(mesh, REPLICATED))


def seconds(program: Callable[[jax.Array], jax.Array], given: jax.Array) -> float:
    """The median of a few."""
    times = []
    for _ in range(TIMES):
        start = time.perf_counter()
        jax.block_until_ready(program(given))
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def tensorflow() -> Answer:
    """TensorFlow reads data, and must leave the GPU to JAX."""
    import tensorflow as tf

    from alexnet_jax.data.batches import leave_gpus

    leave_gpus()
    there, left = tf.config.list_physical_devices("GPU"), tf.config.get_visible_devices("GPU")
    if left:
        return MEND, f"{tf.__version__} takes {len(left)} GPUs that belong to JAX: pip install tensorflow-cpu"
    kept = f"is kept off {len(there)} GPUs" if there else "has no GPU"
    return OK, f"{tf.__version__} {kept}"


def pictures(config: Config) -> Answer:
    """The first and the last picture of each split."""
    from alexnet_jax.data.batches import PackedSet

    packed = PackedSet(find_packed(config.data).path)
    for split, count in packed.pictures.items():
        start = time.perf_counter()
        try:
            packed.table(split)(np.array([0, count - 1]))
        except (ValueError, RuntimeError, OSError, IndexError) as error:
            raise RefusedError(
                f"{packed.path} is damaged: its {split} pictures cannot be read ({error}); delete it, and "
                "pack anew"
            ) from error
        took = time.perf_counter() - start
    return OK, f"{config.data.name} can be read, two pictures in {1e3 * took:.1f} ms"
