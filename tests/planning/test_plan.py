"""The command: what it prints, what it refuses, and the compilers of machines that are not here."""

import dataclasses
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from alexnet_jax.config.fields import Config
from alexnet_jax.errors import CONFIG, REFUSED, ConfigError
from alexnet_jax.planning import compiling, topology
from alexnet_jax.planning.chips import CHIPS
from alexnet_jax.planning.compiling import Plan, Program, compile_step, plan_run
from alexnet_jax.planning.cost import with_batch
from alexnet_jax.planning.page import plan_text
from alexnet_jax.planning.topology import Topology
from alexnet_jax.sharding.mesh import make_mesh
from tests.commands.running import NARROW, ROOT, here

QUICK = ("--config=configs/quickstart.py", *NARROW)
PAPER = "--config=configs/imagenet.py"


def plan(*arguments: str, python: str = sys.executable) -> tuple[str, str]:
    """Runs the command in a process of its own: what it printed, and what it complained of."""
    words = [python, "-m", "alexnet_jax.plan", *arguments]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout, done.stderr


def refused(*arguments: str, code: int = CONFIG) -> str:
    """The one line in which the command refuses."""
    out, err = here("plan", PAPER, *arguments, data_dir=Path("/nowhere"), code=code)
    assert out == "" and len(err.splitlines()) == 1
    return err.rstrip()


@pytest.mark.slow
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the devices of this process, as if they were on two hosts."""
    monkeypatch.setattr(topology, "simulate_cpu_devices", lambda _: None)
    saved = tmp_path / "step.txt"
    out, err = here("plan", *QUICK, "--topology=cpu:2x4", f"--save={saved}", data_dir=tmp_path)
    assert err == ""
    for words in (
        "cpu:2x4, 8 devices on 2 hosts, float32",
        "mesh     4 x 2 (data x tower)",
        "batch    16, 4 pictures a row",
        "to the byte",
    ):
        assert words in out, words
    assert "WARNING" not in out
    assert re.search(r"^  all-gather +tower +2 +\d x [\d,]+$", out, re.MULTILINE)
    assert "Scaling" not in out  # nobody knows what this machine can do
    assert saved.read_text().startswith("HloModule jit_step")


def test_refusals_in_one_line() -> None:
    for arguments, message in (
        (["--topology=h10:2x8"], "no chip 'h10' .*; the nearest name is h100"),
        (["--topology=h100:2x8", "--batch=100"], "--batch=100 does not divide .*; choose 96 or 104"),
        (["--topology=h100:2x8", "--mesh=4x2"], "16; choose --mesh=16x1 or --mesh=8x2"),
        (["--topology=h100:2x8", "--mesh=4x4"], "does not divide network.towers=2; choose 1 or 2"),
    ):
        found = refused(*arguments)
        assert re.search(message, found), found


@pytest.mark.slow
@pytest.mark.usefixtures("half_optimised")
def test_what_does_not_fit(narrow: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch that is proposed fits, and is not far below what there is room for."""

    def needs(batch: int) -> int:
        return compile_step(with_batch(narrow, batch), make_mesh(2, 1)).bytes

    chip = dataclasses.replace(CHIPS["a100"], memory=needs(96) * 6 // 10)
    monkeypatch.setattr(compiling, "CHIPS", {"a100": chip})
    monkeypatch.setattr(compiling, "devices_of", lambda _: jax.devices())
    with pytest.raises(ConfigError) as raised:
        plan_run(with_batch(narrow, 96), Topology("a100", "1x2", 1, 2), (2, 1))
    found = re.fullmatch(
        r"--batch=96 needs [\d.]+ GB on each device of a100:1x2, which has [\d.]+ GB; try --batch=(\d+)",
        str(raised.value),
    )
    batch = int(found[1])
    assert batch < 96 and batch % 2 == 0
    assert 0.8 * chip.memory < needs(batch) <= chip.memory


def test_figures_for_hardware_that_is_not_here(paper: Config) -> None:
    """Floors, and meshes up to 4,096 devices, with nothing compiled."""
    here, there = Program("", 0.0, 10**9, 10**9, 0.0, [], []), Topology("h100", "4x8", 4, 8)
    out = plan_text(Plan(with_batch(paper, 1024), there, CHIPS["h100"], (16, 2), "as asked", here))
    assert re.search(r"^  +4,096 +2048x2 ", out, re.MULTILINE)
    for words in (
        "memory   2.00 of 84.98 GB",
        "floors   products ",
        "Choose data x 2 for 2 to ",
        "H100 SXM data",
    ):
        assert words in out, words


def test_a_compiler_that_refuses(narrow: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A TPU's says how much it would have needed; any other error is a bug."""

    class Lowered:
        def __init__(self, message: str):
            self.message = message

        def compile(self) -> None:
            raise RuntimeError(self.message)

    oom = "RESOURCE_EXHAUSTED: E1000: memory for HLO temporaries (46.5G) exceeds available HBM (15.75G)."
    monkeypatch.setattr(compiling, "requested", lambda *_: [])
    monkeypatch.setattr(compiling, "lower_step", lambda *_: Lowered(oom))
    assert compile_step(narrow, make_mesh(1, 1)).bytes == int(46.5 * 2**30)
    monkeypatch.setattr(compiling, "lower_step", lambda *_: Lowered("INTERNAL: (3G) something"))
    with pytest.raises(RuntimeError, match="INTERNAL"):
        compile_step(narrow, make_mesh(1, 1))


def compiler(variable: str, module: str) -> str:
    """A Python with a compiler for other hardware: the one that the environment names, or this one."""
    if os.environ.get(variable):
        return os.environ[variable]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"no {module} here; {variable} may name a Python that has it")
    return sys.executable


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chips", "mesh", "sent"),
    [("h100:1x2", "1 x 2", 31_320_064), ("h100:4x8", "16 x 2", 1_957_504), ("a100:1x1", "1 x 1", 0)],
)
def test_gpus(chips: str, mesh: str, sent: int) -> None:
    """The paper's batch: the towers' exchange and the all-reduce, to the byte."""
    python = compiler("ALEXNET_GPU_PYTHON", "jax_cuda12_plugin")
    out, err = plan(PAPER, f"--topology={chips}", f"--mesh={mesh.replace(' ', '')}", python=python)
    assert err == ""
    check(out, mesh, sent)


@pytest.mark.slow
def test_tpus() -> None:
    """Minutes: its compiler takes its time."""
    python = compiler("ALEXNET_TPU_PYTHON", "libtpu")
    out, _ = plan(PAPER, "--topology=v5e:2x2", "--mesh=2x2", python=python)
    check(out, "2 x 2", 15_660_032)


def check(out: str, mesh: str, sent: int) -> None:
    assert f"mesh     {mesh} (data x tower)" in out
    assert "WARNING" not in out
    assert (f"  tower  {sent:,} bytes of crossings" in out) == (sent > 0)
    assert ("  data   121,930,448 bytes of gradients" in out) == (mesh[0] != "1" or mesh[1] == "6")
    for kind in ("all-gather", "reduce-scatter") if sent else ():
        assert re.search(rf"^  {kind} +tower +2 +\d x [\d,]+$", out, re.MULTILINE), kind


def test_a_missing_compiler() -> None:
    """One line, with the command that installs it."""
    if importlib.util.find_spec("libtpu") is not None:
        pytest.skip("libtpu is installed here")
    assert refused("--topology=v5e:2x2", code=REFUSED).endswith("pip install libtpu")
