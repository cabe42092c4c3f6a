"""Runs that are opened in a notebook or by the command: on which mesh, at what price, and what is refused."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from alexnet_jax import inspect
from alexnet_jax.errors import CONFIG, REFUSED, ConfigError, RefusedError
from tests.commands.running import ROOT, here

slow = functools.partial(pytest.param, marks=pytest.mark.slow)

# First cells of notebooks in a process that has touched no device, or has none any more: some devices are in
# use before, some are asked for. It prints what is loaded, or why it is not.
CELLS = """
import sys
from alexnet_jax import inspect
from alexnet_jax.errors import UserError
heavy = {"tensorflow", "tensorflow_datasets", "matplotlib"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
import jax
from jax.extend.backend import clear_backends
for simulated, used in ((False, False), (False, True), (True, False), (True, True)):
    if simulated: inspect.simulate_cpu_devices(8)
    if used: jax.devices()
    for shape in (None, (1, 1), (4, 2)):
        try:
            opened = inspect.load(sys.argv[1], mesh=shape)
            lines = inspect.table(opened.state.params).splitlines()
            print(opened.mesh.devices.shape, jax.device_count(), len(lines))
        except UserError as error:
            print(error)
    clear_backends()
    jax.config.update("jax_num_cpu_devices", -1)
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


@pytest.mark.slow
def test_devices_of_a_notebook(trained: Path) -> None:
    """The run's devices are simulated unless some are in use, and never fewer than were asked for.

    What cannot be said in one line of them says what to do. Nothing brings TensorFlow.
    """
    words = [sys.executable, "-c", CELLS, str(trained)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines, has = done.stdout.splitlines(), (2, 1, 8, 8)
    assert lines[1::3] == [f"(1, 1) {count} 34" for count in has]
    assert [lines[0], *lines[6::3]] == ["(1, 2) 2 34", "(1, 2) 8 34", "(1, 2) 8 34"]
    assert lines[8::3] == ["(4, 2) 8 34"] * 2
    for line, data, needed, there in ((lines[2], 4, 8, 2), (lines[3], 1, 2, 1), (lines[5], 4, 8, 1)):
        assert f"{data} x 2 (data x tower) needs {needed} devices, there are {there} (cpu); " in line
        assert f"simulate_cpu_devices({needed})" in line


@pytest.mark.slow
def test_any_mesh(trained: Path) -> None:
    """Its own, one by its shape, and one that was made elsewhere, with axes of another type."""
    devices = np.array(jax.devices()[2:4]).reshape(1, 2)
    made = Mesh(devices, ("data", "tower"), axis_types=(AxisType.Explicit,) * 2)
    opened = [inspect.load(trained, mesh=mesh) for mesh in (None, (4, 2), made)]
    assert [one.mesh.devices.shape for one in opened] == [(1, 2), (4, 2), (1, 2)]
    assert [device.id for device in opened[2].mesh.devices.flat] == [2, 3]
    wanted = inspect.scores(opened[0], 8)
    for one in opened[1:]:
        np.testing.assert_allclose(inspect.scores(one, 8), wanted, rtol=1e-4, atol=1e-5)
    assert inspect.responses(opened[2], 8) == inspect.responses(opened[0], 8)


def test_meshes_that_cannot_be(trained: Path) -> None:
    other = Mesh(np.array(jax.devices()).reshape(4, 2), ("x", "y"))
    for mesh, message in (
        ((8, 2), r"mesh of 8 x 2 \(data x tower\) needs 16 devices, there are 8 \(cpu\)"),
        ((2, 4), r"mesh.tower=4 does not divide network.towers=2; choose 1 or 2"),
        ((0, 2), r"a mesh of 0 x 2 has no devices; try 1 x 1"),
        (other, r"the axes of this mesh are x, y; a run needs data, tower, in this order"),
    ):
        with pytest.raises(ConfigError, match=message) as refused:
            inspect.load(trained, mesh=mesh)
        assert len(str(refused.value).splitlines()) == 1


def test_a_step_that_is_not_there(trained: Path, tmp_path: Path) -> None:
    assert inspect.load(trained, step=30).step == 30
    with pytest.raises(RefusedError, match="has no checkpoint of step 7; it has 30"):
        inspect.load(trained, step=7)
    with pytest.raises(RefusedError, match="holds no run"):
        inspect.load(tmp_path)


@pytest.mark.parametrize("mesh", [slow((1, 1)), slow((1, 2)), (4, 2)])
def test_a_tower_is_an_ordinary_tree(trained: Path, mesh: tuple[int, int]) -> None:
    params = inspect.load(trained, mesh=mesh).state.params
    for number in (0, 1):
        found = inspect.tower(params, number)
        assert jax.tree.structure(found) == jax.tree.structure(params)
        assert len({x.device for x in jax.tree.leaves(found)}) == 1
        jax.tree.map(lambda x, whole, t=number: np.testing.assert_array_equal(x, whole[t]), found, params)
    with pytest.raises(ConfigError, match="there is no tower 2, of 2"):
        inspect.tower(params, 2)


@pytest.mark.slow
def test_the_command(trained: Path, data_dir: Path) -> None:
    """Without a word all there is, on more devices than the run had."""
    out, err = here("inspect", f"--workdir={trained}", "--mesh=4x2", data_dir=data_dir)
    assert err == ""
    parts = dict(part.split("\n", 1) for part in out.split("\n\n")[1:])
    assert out.startswith("trained at step 30, on 4 x 2 devices (data x tower)\n")
    assert list(parts) == ["Parameters", "Shardings", "Communication", "Responses"]
    assert parts["Parameters"].count("cpu:0 2 4 6") == 16
    assert parts["Shardings"].splitlines()[16:] == [
        "  axis 0 +-------------+",
        "       0 | cpu:0 2 4 6 |",
        "         +-------------+",
        "       1 | cpu:1 3 5 7 |",
        "         +-------------+",
    ]
    assert parts["Communication"].endswith("which is what the arithmetic says, to the byte")
    assert parts["Responses"].splitlines()[-2].split()[:2] == ["fc8", "0"]


def test_one_part_of_it(trained: Path, data_dir: Path) -> None:
    out, _ = here("inspect", f"--workdir={trained}", "--step=30", "shardings", data_dir=data_dir)
    assert out.splitlines()[0] == "trained at step 30, on 1 x 2 devices (data x tower)"
    assert out.count("\n\n") == 1
    assert "       1 | cpu:1 |" in out


def test_refusals(trained: Path, data_dir: Path) -> None:
    for word, code, message in (
        ("responces", CONFIG, "nothing called 'responces' to look at; the nearest is responses, of param"),
        ("--mesh=4", CONFIG, "--mesh=4 must be DATAxTOWER"),
        ("--step=3", REFUSED, "has no checkpoint of step 3; it has 30"),
    ):
        out, err = here("inspect", f"--workdir={trained}", word, data_dir=data_dir, code=code)
        assert out == "" and message in err and len(err.splitlines()) == 1


def test_the_librarys_own_module() -> None:
    """No file of the package imports it, and where commands are started it is found."""
    for path in (ROOT / "alexnet_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert "inspect" not in {name.name for name in node.names}, path
            if isinstance(node, ast.ImportFrom):
                assert node.module != "inspect", path
    words = "import inspect, sys; sys.exit('alexnet_jax' in inspect.__file__)"
    assert subprocess.run([sys.executable, "-c", words], cwd=ROOT, check=False).returncode == 0
