"""Real processes that differ before they begin, and every difference in words."""

import dataclasses
import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet_jax.cluster import preflight
from alexnet_jax.config.fields import Config
from tests.commands.running import ROOT, STARTED

# A process that joins, refuses or not, and says what it has heard.
PROCESS = """
import json, pathlib, sys
import jax
from alexnet_jax.cluster import preflight
from alexnet_jax.config.building import build
from alexnet_jax.errors import ConfigError, UserError
process, count, port, folder, config, problem = json.loads(sys.argv[1])
preflight.SEEING, preflight._digest = 1, lambda _: "0"
jax.distributed.initialize(f"localhost:{port}", count, process)
def checks():
    if problem:
        raise ConfigError(problem)
    return build(config)
try:
    preflight.preflight(checks, pathlib.Path(folder), 60)
    print("all is well")
except UserError as error:
    print(error)
"""


def meet(config: Config, folder: Path, *own: dict) -> list[str]:
    """The verdict in each of several processes; each may differ in something of its `own`."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    values = dataclasses.asdict(config)
    said = [
        (
            i,
            len(own),
            port,
            one.get("folder", str(folder)),
            values | one.get("config", {}),
            one.get("problem"),
        )
        for i, one in enumerate(own)
    ]
    started = [
        subprocess.Popen([sys.executable, "-c", PROCESS, json.dumps(words)], cwd=ROOT, stdout=-1, text=True)
        for words in said
    ]
    STARTED.extend(started)
    return [process.communicate(timeout=300)[0].strip() for process in started]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({}, "all is well"),
        (
            {"config": {"seed": 5}},
            "process 2 on .* differs from process 0 on .*: its config has seed=5, not 0",
        ),
        ({"problem": "no data here"}, "process 2 on .*: no data here"),
        (
            {"folder": "/nowhere"},
            "process 2 on .* does not see what .* --workdir: it must be on a shared disk",
        ),
    ],
)
def test_three_processes(own: dict, words: str, paper: Config, tmp_path: Path) -> None:
    """They all hear the same, and leave nothing behind."""
    heard = meet(paper, tmp_path, {}, {}, own)
    assert len(set(heard)) == 1, heard
    assert re.fullmatch(words, heard[0]), heard
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def facts(paper: Config, monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.setattr(preflight, "_digest", lambda _: "0")
    return json.loads(json.dumps({"host": "here", "sees": True} | preflight._facts(paper)))


def other(facts: dict, **changes: object) -> dict:
    return facts | {"host": "there"} | changes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _: {}, ""),
        (lambda facts: {"versions": facts["versions"] | {"jax": "0.1"}}, "it has jax 0.1, not "),
        (lambda facts: {"gpu": not facts["gpu"]}, "it has a GPU"),
        (lambda _: {"code": "0123"}, "its files of alexnet_jax are others (digest 0123, not "),
        (lambda _: {"data": "9"}, "its data set imagenet2012 has other pictures (digest 9, not 0)"),
        (
            lambda facts: {"config": facts["config"] | {"train": facts["config"]["train"] | {"epochs": 1.0}}},
            "its config has train.epochs=1.0, not 90.0",
        ),
        # Each host may have its data elsewhere.
        (lambda facts: {"config": facts["config"] | {"data": facts["config"]["data"] | {"dir": "x"}}}, ""),
    ],
)
def test_differences(change: Callable[[dict], dict], words: str, facts: dict) -> None:
    found = preflight._fault(1, [facts, other(facts, **change(facts))])
    start = "process 1 on there differs from process 0 on here: "
    assert found.startswith(start + words) if words else found == ""


def test_whose_problem_is_named(facts: dict) -> None:
    """Its own; what differs from a process that was refused says nothing."""
    refused = {"host": "here", "sees": True, "problem": "no data"}
    assert preflight._fault(0, [refused, facts]) == "process 0 on here: no data"
    assert preflight._fault(1, [refused, facts]) == ""
    blind = other(facts, sees=False)
    words = "process 1 on there does not see what here writes to --workdir: it must be on a shared disk"
    assert preflight._fault(1, [facts, blind]) == words
