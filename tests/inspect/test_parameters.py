"""The table against plain NumPy in float64, in many processes too, and the memory that it takes."""

import json
import re
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from alexnet_jax.errors import ConfigError
from alexnet_jax.inspect.parameters import rows, table
from alexnet_jax.sharding.mesh import DATA, TOWER, make_mesh, shard
from tests.commands.running import ROOT

SHAPES = {
    "bias": (2, 24),
    "dense": (2, 96, 40),
    "wide": (2, 2048, 1500),  # added one by one in float32 they would be 4e-6 off
    "four": (2, 3, 5, 7),
    "conv": (2, 11, 11, 3, 24),
    "local": (2, 3, 3, 3, 3, 16, 8),
}

# The full network's parameters on 4 x 2 simulated devices, tabulated twice, the first time with all that is
# compiled for it, and reduced in other ways after that; peaks in MB above idle.
TABULATING = """
import json
import jax, numpy as np
from jax import lax, numpy as jnp
from alexnet_jax.config.building import build
from alexnet_jax.learning.state import state_shapes
from alexnet_jax.inspect.parameters import rows
from alexnet_jax.sharding.mesh import PARAMETERS, make_mesh, shard
from alexnet_jax.sharding.platform import simulate_cpu_devices
from configs.imagenet import PAPER

def status(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))

def peak(work):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew
    idle = status("VmRSS")
    found = work()
    return status("VmHWM") - idle, found

simulate_cpu_devices(8)
shapes = state_shapes(build(PAPER)).params
ways = {
    "table": rows,
    "again": rows,
    "gather": lambda tree: [np.linalg.norm(np.asarray(x)) for x in jax.tree.leaves(tree)],
    "square": lambda tree: [float(jnp.sum(jnp.square(x))) for x in jax.tree.leaves(tree)],
}
draw = lambda x: lax.broadcasted_iota(x.dtype, x.shape, x.ndim - 1) / x.shape[-1]
fill = jax.jit(lambda: jax.tree.map(draw, shapes), out_shardings=shard(make_mesh(4, 2), PARAMETERS))
params = jax.block_until_ready(fill())
found = {name: peak(lambda: len(way(params))) for name, way in ways.items()}
numbers = sum(x.size for x in jax.tree.leaves(params))
print(json.dumps({"numbers": numbers, **found}))
"""

# One of two processes with a device each; both of them print the whole table's figures, on two meshes.
TOGETHER = """
import json, sys
import jax, numpy as np
from alexnet_jax.inspect.parameters import rows
from alexnet_jax.sharding.mesh import PARAMETERS, make_mesh, shard
from alexnet_jax.sharding.platform import simulate_cpu_devices

port, number = map(int, sys.argv[1:])
simulate_cpu_devices(1)
jax.distributed.initialize(f"localhost:{port}", 2, number)
numbers = np.random.default_rng(0).normal(3, 2, (2, 5, 6)).astype(np.float32)
for shape in (1, 2), (2, 1):
    place = shard(make_mesh(*shape), PARAMETERS)
    x = jax.make_array_from_callback(numbers.shape, place, lambda index: numbers[index])
    print(json.dumps([[r.tower, r.devices, r.mean, r.deviation, r.norm] for r in rows({"x": x})]))
"""


def arrays(shape: tuple[int, int]) -> tuple[dict[str, np.ndarray], dict[str, jax.Array]]:
    """Numbers that lie far from zero, on the host and on a mesh."""
    rng = np.random.default_rng(0)
    host = {name: rng.normal(5, 0.1, size).astype(np.float32) for name, size in SHAPES.items()}
    host["bias"][:] = 1
    return host, jax.device_put(host, shard(make_mesh(*shape), PartitionSpec(TOWER)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (4, 2)])
def test_against_numpy(shape: tuple[int, int]) -> None:
    host, placed = arrays(shape)
    found = rows(placed)
    assert [(row.name, row.tower) for row in found] == [(name, t) for name in sorted(SHAPES) for t in (0, 1)]
    for row in found:
        one = host[row.name][row.tower].astype(np.float64)
        assert row.shape == SHAPES[row.name]
        assert row.bytes == host[row.name].nbytes // shape[1]
        wanted = (one.mean(), one.std(), np.linalg.norm(one))
        np.testing.assert_allclose((row.mean, row.deviation, row.norm), wanted, rtol=2e-6)


def test_cut_along_other_axes_too() -> None:
    numbers = np.random.default_rng(1).normal(0, 1, (2, 6, 8)).astype(np.float32)
    spec = PartitionSpec(TOWER, None, DATA)
    found = rows({"x": jax.device_put(numbers, shard(make_mesh(4, 2), spec))})
    for row, one, devices in zip(found, numbers, ("cpu:0 2 4 6", "cpu:1 3 5 7"), strict=True):
        assert (row.spec, row.bytes, row.devices) == ("P('tower', None, 'data')", 6 * 2 * 4, devices)
        np.testing.assert_allclose(row.norm, np.linalg.norm(one), rtol=1e-6)


def test_as_text() -> None:
    """Every array once, every tower on a line."""
    text = table(arrays((4, 2))[1])
    assert re.search(
        r"^local +\(2, 3, 3, 3, 3, 16, 8\)  P\('tower'\) +41,472 +0  cpu:0 2 4 6 +[45]\S* +0\.\d+ +[\d.]+$",
        text,
        re.MULTILINE,
    )
    assert re.search(r"^ {20,}1  cpu:1 3 5 7 +1 +0 +4\.899$", text, re.MULTILINE)
    numbers = sum(int(np.prod(size)) for size in SHAPES.values())
    assert text.splitlines()[-1] == f"  {numbers:,} numbers; {numbers * 4 // 2:,} bytes on each device"


def test_without_towers() -> None:
    everywhere = jax.device_put(np.float32(3), shard(make_mesh(4, 2), PartitionSpec()))
    for x in (np.ones((3, 4)), jax.numpy.ones((3, 4)), everywhere):
        with pytest.raises(ConfigError, match=r"fc6/kernel has no axis of towers .* state.params have one$"):
            rows({"fc6": {"kernel": x}})


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_memory() -> None:
    """The paper's 60,965,224 parameters on eight devices are 976 MB of this machine's memory: less than 5
    more while they are tabulated. What the compilation takes before depends on the allocator: 10 to 20 MB
    were seen. What gathers or squares them takes many times as much.
    """
    words = [sys.executable, "-c", TABULATING]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found.pop("numbers"), found["table"][1]) == (60_965_224, 32)
    peaks = {way: most for way, (most, _) in found.items()}
    assert peaks["again"] < 5, peaks
    assert peaks["table"] < min(peaks["gather"], peaks["square"]) / 4, peaks


@pytest.mark.slow
def test_in_several_processes() -> None:
    """Both know both towers, of which each holds one, or both of them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, *map(str, (port, number))],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    ended = [process.communicate(timeout=300) for process in started]
    for process, (_, err) in zip(started, ended, strict=True):
        assert process.returncode == 0, err
    first, second = (list(map(json.loads, out.splitlines()[-2:])) for out, _ in ended)
    assert first == second
    numbers = np.random.default_rng(0).normal(3, 2, (2, 5, 6)).astype(np.float32).astype(np.float64)
    for shape, found in zip(((1, 2), (2, 1)), first, strict=True):
        held = [devices.split() for _, devices, *_ in found]
        assert [len(devices) for devices in held] == [2 // shape[1]] * 2
        assert (held[0] == held[1]) == (shape == (2, 1))
        for (tower, _, *figures), one in zip(found, numbers, strict=True):
            wanted = (one.mean(), one.std(), np.linalg.norm(one))
            np.testing.assert_allclose(figures, wanted, rtol=1e-5, err_msg=f"{shape}, tower {tower}")
