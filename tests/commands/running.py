"""Runs the commands as users type them: in this process, which has imported all that they need, or in one of
their own, which takes seconds to start and can be killed.
"""

import contextlib
import importlib.util
import io
import json
import os
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict

from alexnet_jax.config.building import build
from alexnet_jax.config.fields import Config

ROOT = Path(__file__).parent.parent.parent
WIDTHS = {"conv1": 8, "conv2": 16, "conv3": 16, "conv4": 16, "conv5": 8, "fc6": 16, "fc7": 32}
NARROW = (
    *(f"--config.network.{name}.width={width}" for name, width in WIDTHS.items()),
    "--config.train.batch_size=16",
    "--config.train.blocks=0",  # compiled in less time
)

STARTED: list[subprocess.Popen] = []  # by the test that runs


def narrow(recipe: ConfigDict, data_dir: Path, steps: int, **more: dict[str, Any]) -> Config:
    """A recipe with the network and the batch of `NARROW`, for runs within this process."""
    values = recipe.to_dict()
    for name, width in WIDTHS.items():
        values["network"][name]["width"] = width
    values["train"] |= {"batch_size": 16, "blocks": 0, "steps": steps}
    values["data"]["dir"] = str(data_dir)
    for section, changes in more.items():
        values[section] |= changes
    return build(values)


def end(process: subprocess.Popen) -> None:
    """Kills a process and its children, which a launcher that is killed could not end."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    for child in children.read_text().split() if process.poll() is None else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)
    process.kill()


def command(module: str, *arguments: str, data_dir: Path) -> subprocess.Popen:
    """Starts python -m alexnet_jax.MODULE."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"alexnet_jax.{module}", *arguments],
        cwd=ROOT,
        env=os.environ | {"ALEXNET_DATA_DIR": str(data_dir)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    STARTED.append(process)
    return process


def here(module: str, *arguments: str, data_dir: Path, code: int = 0) -> tuple[str, str]:
    """`run` within this process, on the devices that it has."""
    alone = ["--distributed=off"] if module == "main" else []  # JAX is in use: too late to join others
    words = [f"alexnet_jax.{module}", *alone, *arguments]
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
        mock.patch.object(sys, "argv", words),
        # Not by putenv: other threads may be reading the environment.
        mock.patch.object(os, "environ", {**os.environ, "ALEXNET_DATA_DIR": str(data_dir)}),
        mock.patch("alexnet_jax.sharding.mesh.simulate_cpu_devices"),
        mock.patch("alexnet_jax.training.devices.simulate_cpu_devices"),
        _own_flags(),
        _same_signals(),
    ):
        folder = importlib.util.find_spec(words[0]).submodule_search_locations
        name = f"{words[0]}.__main__" if folder else words[0]
        imported = sys.modules.pop(name, None)  # by a test, which runpy would warn of
        try:
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
            ended = 0
        except SystemExit as end:
            ended = end.code or 0
        finally:
            if imported:
                sys.modules[name] = imported
    assert ended == code, f"exit code {ended}\n{out.getvalue()}\n{err.getvalue()}"
    return out.getvalue(), err.getvalue()


@contextlib.contextmanager
def _own_flags() -> Iterator[None]:
    """Commands define flags of the same names: each finds those of libraries alone, and leaves the others."""
    before, verbosity = _project_flags(), logging.get_verbosity()
    for name in before:
        delattr(flags.FLAGS, name)
    try:
        yield
    finally:
        for name in _project_flags():
            delattr(flags.FLAGS, name)
        for name, flag in before.items():
            flags.FLAGS[name] = flag
        logging.set_verbosity(verbosity)


def _project_flags() -> dict[str, flags.Flag]:
    """The flags of this project's modules; absl counts overrides of a config among its own."""
    ours = re.compile("alexnet_jax|ml_collections|^$")  # of what was put back absl knows no module
    modules = {name: flags.FLAGS.find_module_defining_flag(name, "") for name in flags.FLAGS}
    return {name: flags.FLAGS[name] for name, found in modules.items() if "." in name or ours.search(found)}


@contextlib.contextmanager
def _same_signals() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def run(module: str, *arguments: str, data_dir: Path, code: int = 0) -> tuple[str, str]:
    """Runs a command to its end in a process of its own: what it printed, and what it complained of."""
    process = command(module, *arguments, data_dir=data_dir)
    try:
        out, err = process.communicate(timeout=300)
    finally:
        end(process)  # where it hangs
    assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
    return out, err


def train(workdir: Path, *arguments: str, data_dir: Path, code: int = 0) -> tuple[str, str]:
    """Trains a narrow network on toyshapes."""
    flags = ("--config=configs/quickstart.py", f"--workdir={workdir}", *NARROW, *arguments)
    return run("main", *flags, data_dir=data_dir, code=code)


def check_alike(found: Path, wanted: Path, tolerance: float = 1e-6) -> None:
    """Two runs report the same, but for how their losses are rounded."""
    ours, theirs = (lines(path) for path in (found, wanted))
    losses = [[line.pop("loss") for line in run] for run in (ours, theirs)]
    assert ours == theirs
    np.testing.assert_allclose(*losses, rtol=tolerance)


def lines(workdir: Path, *, but: tuple[str, ...] = ("images_per_second",)) -> list[dict[str, Any]]:
    """metrics.jsonl without the figures that depend on the clock."""
    text = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in but} for line in text]
