"""The command: what it prints, what it refuses, and the compilers of machines that are not here."""

import dataclasses
import functools
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from alexnet_jax.config import Config
from alexnet_jax.errors import CONFIG, REFUSED, ConfigError
from alexnet_jax.planning import planner, topology
from alexnet_jax.planning.chips import CHIPS, cpu
from alexnet_jax.planning.cost import with_batch
from alexnet_jax.planning.planner import Program, compile_step, make_plan
from alexnet_jax.planning.topology import Topology
from alexnet_jax.sharding.mesh import make_mesh
from tests.run.commands import NARROW, ROOT, here

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
    """For the devices of this process, as if they were on two hosts, with rates that nobody measured."""
    monkeypatch.setattr(topology, "simulate_cpu_devices", lambda _: None)
    monkeypatch.setattr(topology, "measured_cpu", lambda each: cpu(100e9, 20e9, 2e9, each))
    saved = tmp_path / "step.txt"
    out, err = here("plan", *QUICK, "--topology=cpu:2x4", f"--save={saved}", data_dir=tmp_path)
    assert err == ""
    for words in (
        "cpu:2x4, 8 devices on 2 hosts, float32",
        "mesh     4 x 2 (data x tower)",
        "batch    16, 4 pictures a row",
        "to the byte",
        "measured now: a float32 product",
        "Scaling with 2 pictures a device",
        "Choose data x 2",
    ):
        assert words in out, words
    assert "WARNING" not in out
    assert re.search(r"^  all-gather +tower +2 +[\d,]+  conv3$", out, re.MULTILINE)
    assert re.search(r"^  +4,096 +2048x2 ", out, re.MULTILINE)
    assert saved.read_text().startswith("HloModule jit_step")


@pytest.mark.slow
def test_a_plan_for_this_machine() -> None:
    """Simulates devices of its own, and measures them."""
    out, err = plan(*QUICK, "--topology=cpu:2x2")
    assert err == ""
    assert "cpu:2x2, 4 devices on 2 hosts" in out and "mesh     2 x 2 (data x tower)" in out
    [rate] = re.findall(r"measured now: a float32 product of 2048 x 2048 at ([\d.]+)", " ".join(out.split()))
    assert float(rate) > 0


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
    """The batch that is proposed was compiled, and fits; it is not far below what there is room for."""
    step = functools.cache(compile_step)
    monkeypatch.setattr(planner, "compile_step", step)

    def needs(batch: int) -> int:
        return step(with_batch(narrow, batch), make_mesh(2, 1)).bytes

    chip = dataclasses.replace(CHIPS["a100"], memory=needs(96) * 6 // 10)
    monkeypatch.setattr(planner, "open_chip", lambda _: chip)
    monkeypatch.setattr(planner, "devices_of", lambda _: jax.devices())
    with pytest.raises(ConfigError) as raised:
        make_plan(with_batch(narrow, 96), Topology("a100", "1x2", 1, 2), (2, 1))
    found = re.fullmatch(
        r"--batch=96 needs [\d.]+ GB on each device of a100:1x2, which has [\d.]+ GB; the largest that fits "
        r"is about --batch=(\d+), [\d.]+ GB",
        str(raised.value),
    )
    batch = int(found[1])
    assert batch < 96
    assert batch % 2 == 0
    assert 0.9 * chip.memory < needs(batch) <= chip.memory


def test_a_search_that_takes_more_than_one_step(paper: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Needs that do not grow with the batch in one line: what is proposed still fits."""

    def needs(batch: int) -> int:
        return int(2e9 + 9.2e6 * batch**0.9)

    def pretended(config: Config, _: object) -> Program:
        return Program("", 0.0, 0, needs(config.train.batch_size), 0.0, [], [])

    monkeypatch.setattr(planner, "compile_step", pretended)
    monkeypatch.setattr(planner, "devices_of", lambda _: jax.devices())
    with pytest.raises(ConfigError, match="the largest that fits is about") as raised:
        make_plan(with_batch(paper, 40_000), Topology("a100", "1x2", 1, 2), (2, 1))
    batch = int(re.search(r"about --batch=(\d+)", str(raised.value))[1])
    assert 0.6 * CHIPS["a100"].memory < needs(batch) <= CHIPS["a100"].memory


def test_a_compiler_that_refuses(narrow: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A TPU's says how much it would have needed; any other error is a bug."""

    class Lowered:
        def __init__(self, message: str):
            self.message = message

        def compile(self) -> None:
            raise RuntimeError(self.message)

    oom = "RESOURCE_EXHAUSTED: E1000: memory for HLO temporaries (46.5G) exceeds available HBM (15.75G)."
    monkeypatch.setattr(planner, "requested", lambda *_: [])
    monkeypatch.setattr(planner, "lower_step", lambda *_: Lowered(oom))
    assert compile_step(narrow, make_mesh(1, 1)).bytes == int(46.5 * 2**30)
    monkeypatch.setattr(planner, "lower_step", lambda *_: Lowered("INTERNAL: (3G) something"))
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
    [("h100:1x2", "1 x 2", 31_576_064), ("h100:4x8", "16 x 2", 1_973_504), ("a100:1x1", "1 x 1", 0)],
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
    check(out, "2 x 2", 15_788_032)


def check(out: str, mesh: str, sent: int) -> None:
    assert f"mesh     {mesh} (data x tower)" in out
    assert "WARNING" not in out
    assert (f"  tower  {sent:,} bytes of crossings" in out) == (sent > 0)
    assert ("  data   121,930,448 bytes of gradients" in out) == (mesh[0] != "1" or mesh[1] == "6")
    for layer in ("conv3", "fc6", "fc7", "fc8", "scores") if sent else ():
        for kind in ("all-gather", "reduce-scatter"):
            assert re.search(rf"^  {kind} +tower +2 +[\d,]+  {layer}$", out, re.MULTILINE), (kind, layer)


def test_a_missing_compiler() -> None:
    """One line, with the command that installs it."""
    if importlib.util.find_spec("libtpu") is not None:
        pytest.skip("libtpu is installed here")
    assert refused("--topology=v5e:2x2", code=REFUSED).endswith("pip install libtpu")
