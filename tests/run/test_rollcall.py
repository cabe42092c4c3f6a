"""Processes that meet over real sockets, each in a thread of its own: they all hear the same answer."""

import re
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from alexnet_jax.errors import RefusedError
from alexnet_jax.run import rollcall
from alexnet_jax.run.cluster import Cluster
from alexnet_jax.run.rollcall import roll_call

Call = dict[str, Any]  # what a process says that differs
BEYOND = b'{"process": 2, "processes": 2, "host": "x", "facts": {"seed": 0}, "problem": null}\n'


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def differ(ours: dict, theirs: dict) -> str | None:
    return None if ours == theirs else f"{theirs['seed']}, not {ours['seed']}"


def meet(port: int, folder: Path, *calls: Call, count: int | None = None, seconds: int = 20) -> list[str]:
    """What each process hears; "" where all is well."""
    heard: dict[int, str] = {}

    def one(place: int, call: Call) -> None:
        number = call.get("number", place)
        cluster = Cluster(f"localhost:{port}", call.get("count", count or len(calls)), number, None, "a test")
        time.sleep(call.get("late", 0))
        said = call.get("folder", folder), {"seed": call.get("seed", 0)}, call.get("problem")
        try:
            assert roll_call(cluster, *said, differ, call.get("seconds", seconds)) == 1  # host
            heard[place] = ""
        except RefusedError as error:
            heard[place] = str(error)

    threads = [threading.Thread(target=one, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [heard[place] for place in range(len(calls))]


@pytest.mark.parametrize("late", [0, 1])
def test_all_is_well(port: int, tmp_path: Path, late: int) -> None:
    """Whoever comes first; nothing is left behind, and the port is free for the next."""
    for _ in range(2):
        assert meet(port, tmp_path, {"late": 1 - late}, {"late": late}, {}) == ["", "", ""]
    assert not list(tmp_path.iterdir())
    with socket.create_server(("localhost", port)):
        pass


@pytest.mark.parametrize("late", [0, 1])
@pytest.mark.parametrize(
    ("third", "words"),
    [
        ({"seed": 5}, "process 2 on .* differs from process 0 on .*: 5, not 0"),
        ({"problem": "no data here", "seed": 5}, "process 2 on .*: no data here"),
        ({"number": 1}, "two processes call themselves 1, on"),
        ({"count": 4}, "process 2 on .* counts 4 processes, process 0 counts 3"),
        ({"folder": "elsewhere"}, "process 2 on .* does not see what .* --workdir must be on a shared disk"),
    ],
)
def test_everybody_hears_what_is_wrong(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, third: Call, words: str, late: int
) -> None:
    """Whoever comes last: before, a process that came after the refused one found nobody."""
    monkeypatch.setattr(rollcall, "SEEING", 1)
    if "folder" in third:
        third["folder"] = tmp_path / third["folder"]
    heard = meet(port, tmp_path, {}, {"late": late}, {"late": 1 - late, **third})
    assert len(set(heard)) == 1, heard
    assert re.search(words, heard[0]), heard


def test_one_that_does_not_come(port: int, tmp_path: Path) -> None:
    """Of four, in three seconds."""
    began = time.monotonic()
    heard = meet(port, tmp_path, {}, {}, {}, count=4, seconds=3)
    assert time.monotonic() - began < 8
    assert set(heard) == {f"process 3 of 4 did not come to localhost:{port} within 3 s; 3 did"}


def test_a_fault_is_told_before_the_end_of_the_wait(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four, one has no data and one does not come: nobody waits for it to the end."""
    monkeypatch.setattr(rollcall, "LATE", 1)
    began = time.monotonic()
    heard = meet(port, tmp_path, {}, {"problem": "no data"}, {}, count=4)
    assert time.monotonic() - began < 8
    assert len(set(heard)) == 1
    assert re.search("process 1 on .*: no data", heard[0])


def test_many_that_do_not_come(port: int, tmp_path: Path) -> None:
    [heard] = meet(port, tmp_path, {}, count=2000, seconds=1)
    assert heard.startswith("processes 1, 2, 3, 4, 5 and 1994 more of 2000 did not come to")


def test_no_process_0(port: int, tmp_path: Path) -> None:
    [heard] = meet(port, tmp_path, {"number": 1}, count=2, seconds=1)
    assert heard.startswith(f"process 0 is not at localhost:{port} after 1 s (")


def test_a_wait_speaks_of_itself(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rollcall, "SILENCE", 1)
    assert meet(port, tmp_path, {}, {"late": 2.5}) == ["", ""]
    assert f"waiting for process 1 of 2 at localhost:{port}, 1 s of at most 20 s" in capfd.readouterr().err
    assert meet(port, tmp_path, {"late": 2.5}, {}) == ["", ""]
    assert f"waiting for process 0 of 2 at localhost:{port} (" in capfd.readouterr().err


def test_one_that_is_killed_while_it_waits_may_come_again(port: int, tmp_path: Path) -> None:
    """As a pod does that is started anew."""

    def vanish() -> None:
        time.sleep(0.5)
        with socket.create_connection(("localhost", port)) as gone:
            hello = {"process": 1, "processes": 3, "host": "x", "facts": {"seed": 0}, "problem": None}
            rollcall.Line(gone).send(hello)

    threading.Thread(target=vanish).start()
    assert meet(port, tmp_path, {}, {"late": 2}, {"late": 3}) == ["", "", ""]


def test_process_0_may_come_again(port: int, tmp_path: Path) -> None:
    """Who has come to it before comes anew."""
    first = socket.create_server(("localhost", port))

    def leave() -> None:
        with first:
            first.accept()[0].close()

    threading.Thread(target=leave).start()
    assert meet(port, tmp_path, {"late": 1}, {}) == ["", ""]


@pytest.mark.parametrize("words", [b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b'{"process": 1}\n', b"", BEYOND])
def test_strangers(port: int, tmp_path: Path, words: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    """Who says something else is sent away."""

    def strange() -> None:
        time.sleep(0.5)
        with socket.create_connection(("localhost", port)) as line:
            line.sendall(words)

    threading.Thread(target=strange).start()
    assert meet(port, tmp_path, {}, {"late": 2}) == ["", ""]
    assert f"came to localhost:{port} with something else" in capfd.readouterr().err


def test_a_port_that_is_taken(port: int, tmp_path: Path) -> None:
    with socket.create_server(("", port)):
        [heard] = meet(port, tmp_path, {}, count=2)
    assert heard.startswith(f"process 0 cannot listen at port {port} (Address already in use): choose")
