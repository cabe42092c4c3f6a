"""Accelerators, by their makers' data sheets."""

from dataclasses import dataclass

GIGA, TERA = 1e9, 1e12


@dataclass(frozen=True)
class Chip:
    """A device: FLOP/s, bytes, bytes a second. What it sends, it sends in one direction."""

    name: str
    platform: str  # whose compiler: "cuda" or "tpu"
    float32: float  # FLOP/s at full precision: no TF32, and six passes of bfloat16 on a TPU
    bfloat16: float
    memory: int
    bandwidth: float
    pair: float  # to one device beside it
    ring: float  # while all that are joined by fast links talk
    joined: int  # so many devices have fast links to each other, at most
    between: float  # its share of the way to the others
    target: str  # for the compiler
    source: str

    def peak(self, precision: str) -> float:
        """FLOP/s in a precision of a config; TF32 is half as fast as bfloat16, and a pass of it on a TPU."""
        if precision == "tf32":
            return self.bfloat16 / 2 if self.platform == "cuda" else self.bfloat16
        return getattr(self, precision)


def _hopper(name: str, memory: int, bandwidth: float, source: str) -> Chip:
    return Chip(
        name,
        "cuda",
        float32=67 * TERA,
        bfloat16=989 * TERA,
        memory=memory,
        bandwidth=bandwidth,
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
    return Chip(name, "tpu", target="", **speeds, **rest)


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
            memory=85_100_068_864,
            bandwidth=2039 * GIGA,
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
CPU = "cpu"  # compiled for, but in no table: nobody knows which one it is
NAMES = (*CHIPS, CPU)
