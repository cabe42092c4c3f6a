"""What the hardware can do: one table, each row with its sources; the CPU's row is measured where it runs."""

import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
from jax import numpy as jnp

GIGA, TERA = 1e9, 1e12

# What a program reaches of the peak, and of the memory's bandwidth. Assumed: no accelerator was measured.
ASSUMED = 0.5
# Of the rates that are measured on a CPU. Fitted with benchmarks/plan.py on two cores, see README.md.
FITTED = 0.9


@dataclass(frozen=True)
class Chip:
    """A device: FLOP/s, bytes, bytes a second. What it sends, it sends in one direction."""

    name: str
    platform: str  # whose compiler: "cuda", "tpu" or "cpu"
    float32: float  # FLOP/s at full precision: no TF32, and six passes of bfloat16 on a TPU
    bfloat16: float
    reached: float  # the share of it, and of the bandwidth, that a program reaches
    memory: int
    bandwidth: float
    fresh: float  # bytes a second into memory that the system gives out anew in each step
    pair: float  # to one device beside it
    ring: float  # while all that are joined by fast links talk
    joined: int  # so many devices have fast links to each other, at most
    between: float  # its share of the way to the others
    target: str  # for the compiler
    source: str

    def peak(self, precision: str) -> float:
        """FLOP/s in a precision of a config; TF32 is half as fast as bfloat16, and a pass of it on a TPU."""
        if precision == "tf32":
            return {"cuda": self.bfloat16 / 2, "tpu": self.bfloat16, "cpu": self.float32}[self.platform]
        return getattr(self, precision)


def _hopper(name: str, memory: int, bandwidth: float, source: str) -> Chip:
    return Chip(
        name,
        "cuda",
        float32=67 * TERA,
        bfloat16=989 * TERA,
        reached=ASSUMED,
        memory=memory,
        bandwidth=bandwidth,
        fresh=math.inf,  # the program keeps what it has
        pair=450 * GIGA,
        ring=450 * GIGA,
        joined=8,
        between=50 * GIGA,
        target=_gpu(132, 128, 9, 1.98, 50, 228, 227, memory, bandwidth),
        source=source,
    )


def _tpu(name: str, bfloat16: float, links: int, **rest: object) -> Chip:
    """`ring` is what all links send; a neighbour is at the end of one of them."""
    speeds = {"bfloat16": bfloat16, "float32": bfloat16 / 6, "pair": rest["ring"] / links}
    return Chip(name, "tpu", reached=ASSUMED, fresh=math.inf, target="", **speeds, **rest)


def _gpu(
    cores: int,
    lanes: int,
    generation: int,
    clock: float,
    cache: int,
    shared: int,
    largest: int,
    memory: int,
    bandwidth: float,
) -> str:
    """The description that XLA compiles for (cache in MiB, shared memory in KiB)."""
    fields = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 48 * 1024,
        "shared_memory_per_core": shared * 1024,
        "shared_memory_per_block_optin": largest * 1024,
        "threads_per_core_limit": 2048,
        "core_count": cores,
        "fpus_per_core": lanes,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 2**16 - 1,
        "block_dim_limit_z": 2**16 - 1,
        "registers_per_core_limit": 2**16,
        "registers_per_block_limit": 2**16,
        "memory_bandwidth": round(bandwidth),
        "l2_cache_size": cache * 2**20,
        "clock_rate_ghz": clock,
        "device_memory_size": memory,
    }
    listed = " ".join(f"{name}: {value}" for name, value in fields.items())
    return (
        f"gpu_device_info {{ {listed} cuda_compute_capability {{ major: {generation} }} }} "
        'platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 }'
    )


CHIPS = {
    chip.name: chip
    for chip in (
        _hopper(
            "h100",
            84_978_434_048,
            3352 * GIGA,
            "NVIDIA H100 SXM data sheet: 67 and 989 TFLOP/s dense, 80 GB at 3.35 TB/s, NVLink 450 GB/s each "
            "way; DGX H100: eight GPUs, 400 Gb/s of network each",
        ),
        _hopper(
            "h200",
            151_397_597_184,
            4800 * GIGA,
            "NVIDIA H200 SXM data sheet: 67 and 989 TFLOP/s dense, 141 GB at 4.8 TB/s, NVLink 450 GB/s each "
            "way; DGX H200: eight GPUs, 400 Gb/s of network each",
        ),
        Chip(
            "a100",
            "cuda",
            float32=19.5 * TERA,
            bfloat16=312 * TERA,
            reached=ASSUMED,
            memory=85_100_068_864,
            bandwidth=2039 * GIGA,
            fresh=math.inf,
            pair=300 * GIGA,
            ring=300 * GIGA,
            joined=8,
            between=25 * GIGA,
            target=_gpu(108, 64, 8, 1.41, 40, 164, 163, 85_100_068_864, 2039 * GIGA),
            source="NVIDIA A100 80GB SXM data sheet: 19.5 and 312 TFLOP/s dense, 80 GB at 2,039 GB/s, NVLink "
            "300 GB/s each way; DGX A100: eight GPUs, 200 Gb/s of network each",
        ),
        _tpu(
            "v5e",
            197 * TERA,
            links=4,
            memory=16 * 10**9,
            bandwidth=819 * GIGA,
            ring=200 * GIGA,
            joined=256,
            between=3.1 * GIGA,
            source="Google Cloud TPU v5e page: 197 TFLOP/s bf16, 16 GB at 819 GB/s, 4 links, 400 GB/s both "
            "ways, 256 chips a pod, 6.4 Tb/s of network a pod",
        ),
        _tpu(
            "v5p",
            459 * TERA,
            links=6,
            memory=95 * 10**9,
            bandwidth=2765 * GIGA,
            ring=600 * GIGA,
            joined=6144,
            between=6.25 * GIGA,
            source="Google Cloud TPU v5p page: 459 TFLOP/s bf16, 95 GB at 2,765 GB/s, 4,800 Gb/s of links, "
            "6,144 chips a slice; network assumed, 200 Gb/s for four chips",
        ),
        _tpu(
            "v6e",
            918 * TERA,
            links=4,
            memory=32 * 10**9,
            bandwidth=1638 * GIGA,
            ring=400 * GIGA,
            joined=256,
            between=12.5 * GIGA,
            source="Google Cloud TPU v6e page: 918 TFLOP/s bf16, 32 GB at 1,638 GB/s, 4 links, 800 GB/s both "
            "ways, 256 chips a pod; network assumed, 800 Gb/s for eight chips",
        ),
    )
}
CPU = "cpu"
NAMES = (*CHIPS, CPU)


def measured_cpu(devices: int) -> Chip:
    """One of so many simulated devices that share this machine: medians of five, after a first."""
    rates = {}
    for name, (work, amount) in probes().items():
        seconds = []
        for _ in range(6):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        rates[name] = amount / statistics.median(seconds[1:])
    return cpu(**rates, devices=devices)


def probes() -> dict[str, tuple[Callable[[], object], float]]:
    """What a CPU is measured by: a large product in FLOP, additions and new memory in bytes."""
    size = 2048
    a, x = jnp.ones((size, size), jnp.float32), jnp.ones(2**25, jnp.float32)
    product = jax.jit(lambda a: jnp.dot(a, a, precision="highest"))
    add = jax.jit(lambda x: x + 1, donate_argnums=0)  # in place
    make = jax.jit(lambda x: jnp.ones_like(x))

    def stream() -> None:
        nonlocal x
        x = jax.block_until_ready(add(x))

    return {
        "product": (lambda: jax.block_until_ready(product(a)), 2 * size**3),
        "stream": (stream, 2 * x.nbytes),
        "fresh": (lambda: jax.block_until_ready(make(x)), x.nbytes),
    }


def cpu(product: float, stream: float, fresh: float, devices: int) -> Chip:
    """A share of a machine with these rates."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Chip(
        CPU,
        "cpu",
        float32=product / devices,
        bfloat16=product / devices,  # there is no faster kind here
        reached=FITTED,
        memory=size // devices,
        bandwidth=stream / devices,
        fresh=fresh / devices,
        pair=stream / 2 / devices,  # what goes to a neighbour is read and written
        ring=stream / 2 / devices,
        joined=devices,
        between=1.25 * GIGA / devices,
        target="",
        source=f"measured now: a float32 product of 2048 x 2048 at {product / GIGA:.1f} GFLOP/s, additions "
        f"at {stream / GIGA:.1f} GB/s, new memory at {fresh / GIGA:.1f} GB/s, shared by {devices} "
        f"devices; between hosts 10 Gb/s is assumed",
    )
