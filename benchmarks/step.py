"""One training step and one forward pass: ours, plain JAX's and PyTorch's, in turn, in one process.

    python -m benchmarks.step --batch=32

Plain JAX is the same network as one would first write it: grouped convolutions, `lax.reduce_window` and `pow`
for the normalisation, XLA's own gradient for the pools. Where ours has compiler options it runs with them
too, which tells what they gain from what our code gains. PyTorch's has groups=2 and LocalResponseNorm(5,
alpha=5e-4, beta=0.75, k=2), which divides alpha by 5. All start from N(0, 0.01) weights and see noise, in
float32. PyTorch is optional: `pip install torch`.

Needs jax, flax and optax only.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import jax
from jax import numpy as jnp

from alexnet_jax.sharding.platform import compiler_options
from benchmarks import ours, plain

RATE = 1e-4  # small enough that no network runs off into numbers that cost more, or less, to compute
TRAINING_GFLOP, FORWARD_GFLOP = 4.136, 1.449  # an image, 224 px


def main() -> None:
    arguments = _arguments()
    options = compiler_options(jax.default_backend())
    contenders = {"ours": ours.contender, "plain JAX": plain.contender}
    if options:
        contenders["plain JAX, our options"] = partial(plain.contender, options=options)
    if importlib.util.find_spec("torch"):
        from benchmarks import pytorch

        contenders["PyTorch"] = pytorch.contender
    else:
        print("PyTorch is not installed and is left out; pip install torch adds it", file=sys.stderr)
    steps: dict[str, dict[str, Callable[[], None]]] = {"train": {}, "forward": {}}
    for name, make in contenders.items():
        steps["train"][name], steps["forward"][name] = make(arguments.batch, RATE)
    report = {"machine": _machine(), "batch": arguments.batch, "sgemm_gflops": _sgemm()}
    for kind, gflop in (("train", TRAINING_GFLOP), ("forward", FORWARD_GFLOP)):
        seconds = interleaved(steps[kind], arguments.runs)
        report[kind] = {
            name: {
                "images_per_second": round(arguments.batch / statistics.median(taken), 2),
                "gflops": round(arguments.batch * gflop / statistics.median(taken), 1),
                "seconds": [round(t, 4) for t in taken],
            }
            for name, taken in seconds.items()
        }
    _show(report)
    print(json.dumps(report))


def interleaved(steps: dict[str, Callable[[], None]], runs: int) -> dict[str, list[float]]:
    """Seconds of each step, taken in turn after two unmeasured rounds: a slow spell hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(runs + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn >= 2:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32, help="images a step")
    parser.add_argument("--runs", type=int, default=9, help="measured rounds")
    return parser.parse_args()


def _sgemm(size: int = 2048) -> float:
    """GFLOP/s of a square float32 product on the same device, for scale."""
    a = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda a: jnp.dot(a, a, precision="highest"))
    seconds = interleaved({"sgemm": lambda: jax.block_until_ready(product(a))}, 9)["sgemm"]
    return round(2 * size**3 / statistics.median(seconds) / 1e9, 1)


def _machine() -> dict[str, object]:
    packages = ("jax", "jaxlib", "torch")
    installed = {distribution.metadata["Name"] for distribution in importlib.metadata.distributions()}
    return {
        "device": jax.devices()[0].device_kind,
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "large_pages": "hugetlb=1" in os.environ.get("GLIBC_TUNABLES", ""),
        **{name: importlib.metadata.version(name) for name in packages if name in installed},
    }


def _show(report: dict) -> None:
    print(f"batch {report['batch']}, {report['machine']}, sgemm {report['sgemm_gflops']} GFLOP/s")
    for kind in ("train", "forward"):
        rows, mine = report[kind], report[kind]["ours"]["images_per_second"]
        for name, row in rows.items():
            speed = row["images_per_second"]
            share = row["gflops"] / report["sgemm_gflops"]
            print(
                f"{kind:<8} {name:<22} {speed:8.2f} images/s  {row['gflops']:7.1f} GFLOP/s "
                f"({share:4.0%} of sgemm)  ours is {mine / speed:.2f}x"
            )


if __name__ == "__main__":
    main()
