"""Hardware that isn't there: `h100:2x8` read, and its devices as the compiler knows them."""

import importlib.util
import math
import os
import re
from dataclasses import dataclass

import jax
from jax.experimental import topologies

from alexnet_jax.errors import ConfigError, RefusedError
from alexnet_jax.planning.chips import CHIPS, CPU, NAMES
from alexnet_jax.sharding.platform import simulate_cpu_devices
from alexnet_jax.text import first_line, nearest

# Google Cloud's pages list these slices; four chips have a host.
GRIDS = {
    "v5e": ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v6e": ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v5p": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16"),
}
# There is no machine to ask, of which the compiler would complain at length; any accelerator will do.
TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_STDERR_LOG_LEVEL": "3",
}
MOST_CPUS = 64  # as many devices as one process simulates without waiting for itself


@dataclass(frozen=True)
class Topology:
    """Hosts with a number of devices each, joined as `grid` says."""

    name: str
    grid: str
    hosts: int
    each: int

    @property
    def devices(self) -> int:
        return self.hosts * self.each

    def __str__(self) -> str:
        return f"{self.name}:{self.grid}"


def read_topology(text: str) -> Topology:
    """A topology, or what is nearest to it."""
    name, _, grid = text.partition(":")
    if name not in NAMES:
        near = nearest(name.lower(), NAMES)
        raise ConfigError(
            f"--topology={text}: no chip {name!r} in the table ({', '.join(NAMES)}); the nearest name is "
            f"{near}, as in --topology={near}:{_example(near)}"
        )
    if name in GRIDS:
        return _slice(text, name, grid)
    match = re.fullmatch(r"(\d+)x(\d+)", grid)
    hosts, each = (int(match[1]), int(match[2])) if match else (0, 0)
    most = CHIPS[name].joined if name in CHIPS else MOST_CPUS
    if not (0 < each <= most and hosts):
        fit = _nearest_hosts(hosts * each, most) if hosts and each else _example(name)
        raise ConfigError(
            f"--topology={text} must be {name}:HOSTSxDEVICES, of 1 to {most} devices a host; the nearest is "
            f"--topology={name}:{fit}"
        )
    if name == CPU and hosts * each > MOST_CPUS:
        raise ConfigError(
            f"--topology={text} is {hosts * each} devices, more than the {MOST_CPUS} that one process "
            f"simulates; choose --topology={name}:{max(1, MOST_CPUS // each)}x{each}"
        )
    return Topology(name, grid, hosts, each)


def devices_of(topology: Topology) -> list[jax.Device]:
    """The devices of a topology, neighbours side by side."""
    if topology.name == CPU:
        simulate_cpu_devices(topology.devices)
        return jax.devices()
    # What runs here besides the compiler, runs on this machine's CPU.
    jax.config.update("jax_platforms", "cpu")
    chip, options = CHIPS[topology.name], {}
    if chip.platform == "cuda":
        _require("jax_cuda12_plugin", topology, 'pip install "jax[cuda12]"')
        os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # there is no driver to ask
        options = {"topology_name": topology.name, "target_config": chip.target}
        options["topology"] = f"1x{topology.hosts}x{topology.each}"  # slices x hosts x devices
    else:
        _require("libtpu", topology, "pip install libtpu")
        os.environ |= TPU_ENVIRONMENT
        options = {"topology_name": str(topology)}
    try:
        return topologies.get_topology_desc(platform=chip.platform, **options).devices
    except Exception as error:  # a plugin raises its own types
        raise RefusedError(f"the compiler for {topology} does not start: {first_line(error)}") from error


def _require(module: str, topology: Topology, command: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise RefusedError(f"to compile for {topology} its compiler must be installed: {command}")


def _slice(text: str, name: str, grid: str) -> Topology:
    """A grid of TPU chips."""
    known = GRIDS[name]
    if grid not in known:
        wanted = math.prod(int(n) for n in re.findall(r"\d+", grid)) if re.fullmatch(r"[\dx]+", grid) else 1
        near = min(known, key=lambda shape: abs(math.log(_chips(shape) / max(wanted, 1))))
        raise ConfigError(
            f"--topology={text}: {name} has no slice {grid!r} ({', '.join(known)}); the nearest is "
            f"--topology={name}:{near}"
        )
    hosts = max(1, _chips(grid) // 4)
    return Topology(name, grid, hosts, _chips(grid) // hosts)


def _chips(grid: str) -> int:
    return math.prod(int(n) for n in grid.split("x"))


def _example(name: str) -> str:
    return GRIDS[name][1] if name in GRIDS else "1x2"


def _nearest_hosts(devices: int, most: int) -> str:
    """The same number of devices on hosts that exist."""
    return f"{-(-devices // most)}x{min(devices, most)}"
