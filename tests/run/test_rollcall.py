"""Processes that meet over real sockets, each in a thread of its own: they all hear the same answer."""

import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alexnet_jax.errors import RefusedError
from alexnet_jax.run import rollcall
from alexnet_jax.run.cluster import Cluster
from alexnet_jax.run.rollcall import roll_call

Call = dict[str, Any]  # what a process says that differs, and what it does `first`
BEYOND = b'{"process": 2, "processes": 2, "host": "x", "facts": {"seed": 0}, "problem": null}\n'
LONG = 900  # seconds


class Room:
    """Where they meet: what has happened there can be waited for, and its clock can be put forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.listening, self.came, self.tried, self.told = 0, 0, 0, 0
        self._ahead, self._changed = 0.0, threading.Condition()
        for holder, name, counter in (
            (rollcall, "_listen", "listening"),
            (rollcall, "_let_in", "came"),
            (rollcall.Patience, "tell", "told"),
        ):
            monkeypatch.setattr(holder, name, self._counted(getattr(holder, name), counter))
        monkeypatch.setattr(rollcall, "time", self)
        monkeypatch.setattr(rollcall, "PAUSE", 0.02)

    def _counted(self, function: Callable, counter: str) -> Callable:
        def call(*given: object) -> object:
            result = function(*given)
            if result is not None or counter == "told":
                self._count(counter)
            return result

        return call

    def _count(self, counter: str) -> None:
        with self._changed:
            setattr(self, counter, getattr(self, counter) + 1)
            self._changed.notify_all()

    def once(self, counter: str, least: int = 1) -> None:
        """Waits until something has happened so many times."""
        with self._changed:
            assert self._changed.wait_for(lambda: getattr(self, counter) >= least, 300)

    def after(self, counter: str, more: int = 1) -> None:
        """Waits until something has happened again."""
        self.once(counter, getattr(self, counter) + more)

    def put_forward(self, seconds: float) -> None:
        self._ahead += seconds

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead

    def sleep(self, seconds: float) -> None:
        self._count("tried")
        time.sleep(seconds)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    return Room(monkeypatch)


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def differ(ours: dict, theirs: dict) -> str | None:
    return None if ours == theirs else f"{theirs['seed']}, not {ours['seed']}"


def meet(port: int, folder: Path, *calls: Call, count: int | None = None) -> list[str]:
    """What each process hears; "" where all is well."""
    heard: dict[int, str] = {}

    def one(place: int, call: Call) -> None:
        number = call.get("number", place)
        cluster = Cluster(f"localhost:{port}", call.get("count", count or len(calls)), number, None, "a test")
        call.get("first", lambda: None)()
        said = call.get("folder", folder), {"seed": call.get("seed", 0)}, call.get("problem")
        try:
            assert roll_call(cluster, *said, differ, LONG) == 1  # host
            heard[place] = ""
        except RefusedError as error:
            heard[place] = str(error)

    threads = [threading.Thread(target=one, args=item, daemon=True) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    return [heard[place] for place in range(len(calls))]


def test_all_is_well(port: int, tmp_path: Path, room: Room) -> None:
    """Whoever comes first; nothing is left behind, and the port is free for the next."""
    late = {"first": lambda: room.after("tried")}
    for calls in (({}, {}, {}), (late, {}, {}), ({}, {"first": lambda: room.once("came", 5)}, {})):
        assert meet(port, tmp_path, *calls) == ["", "", ""]
    assert not list(tmp_path.iterdir())
    with socket.create_server(("localhost", port)):
        pass


@pytest.mark.parametrize("last", [1, 2])
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
    port: int, tmp_path: Path, room: Room, monkeypatch: pytest.MonkeyPatch, third: Call, words: str, last: int
) -> None:
    """Whoever comes last: before, a process that came after the refused one found nobody."""
    monkeypatch.setattr(rollcall, "SEEING", 0.1)
    if "folder" in third:
        third = third | {"folder": tmp_path / third["folder"]}
    calls = [{}, {}, dict(third)]
    calls[last]["first"] = lambda: room.once("came")
    heard = meet(port, tmp_path, *calls)
    assert len(set(heard)) == 1, heard
    assert re.search(words, heard[0]), heard


def test_one_that_does_not_come(port: int, tmp_path: Path, room: Room) -> None:
    """Of four: at the end of the wait the others hear of it."""

    def wait() -> None:
        room.once("came", 2)
        room.put_forward(LONG)

    threading.Thread(target=wait).start()
    heard = meet(port, tmp_path, {}, {}, {}, count=4)
    assert set(heard) == {f"process 3 of 4 did not come to localhost:{port} within {LONG} s; 3 did"}


def test_a_fault_is_told_before_the_end_of_the_wait(
    port: int, tmp_path: Path, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four, one has no data and one does not come: nobody waits for it to the end."""
    monkeypatch.setattr(rollcall, "LATE", 0.1)
    heard = meet(port, tmp_path, {}, {"problem": "no data", "first": lambda: room.once("came")}, {}, count=4)
    assert len(set(heard)) == 1
    assert re.search("process 1 on .*: no data", heard[0])


def test_many_that_do_not_come(port: int, tmp_path: Path, room: Room) -> None:
    def wait() -> None:
        room.once("listening")
        room.put_forward(LONG)

    threading.Thread(target=wait).start()
    [heard] = meet(port, tmp_path, {}, count=2000)
    assert heard.startswith("processes 1, 2, 3, 4, 5 and 1994 more of 2000 did not come to")


def test_no_process_0(port: int, tmp_path: Path, room: Room) -> None:
    def wait() -> None:
        room.once("tried")
        room.put_forward(LONG)

    threading.Thread(target=wait).start()
    [heard] = meet(port, tmp_path, {"number": 1}, count=2)
    assert heard.startswith(f"process 0 is not at localhost:{port} after {LONG} s (")


def test_a_wait_speaks_of_itself(
    port: int, tmp_path: Path, room: Room, capfd: pytest.CaptureFixture[str]
) -> None:
    def late() -> None:
        room.after("told")
        assert capfd.readouterr().err == ""
        room.put_forward(rollcall.SILENCE)
        room.after("told", 2)

    assert meet(port, tmp_path, {}, {"first": late}) == ["", ""]
    assert (
        f"waiting for process 1 of 2 at localhost:{port}, 10 s of at most {LONG} s" in capfd.readouterr().err
    )
    assert meet(port, tmp_path, {"first": late}, {}) == ["", ""]
    assert f"waiting for process 0 of 2 at localhost:{port} (" in capfd.readouterr().err


def test_one_that_is_killed_while_it_waits_may_come_again(port: int, tmp_path: Path, room: Room) -> None:
    """As a pod does that is started anew."""

    def vanish() -> None:
        room.once("listening")
        with socket.create_connection(("localhost", port)) as gone:
            hello = {"process": 1, "processes": 3, "host": "x", "facts": {"seed": 0}, "problem": None}
            rollcall.Line(gone).send(hello)
            room.once("came")

    assert meet(port, tmp_path, {}, {"first": vanish}, {"first": lambda: room.once("came", 2)}) == [
        "",
        "",
        "",
    ]


def test_process_0_may_come_again(port: int, tmp_path: Path, room: Room) -> None:
    """Who has come to it before comes anew."""
    first = socket.create_server(("localhost", port))

    def leave() -> None:
        with first:
            first.accept()[0].close()

    assert meet(port, tmp_path, {"first": leave}, {}) == ["", ""]
    assert room.came == 1


@pytest.mark.parametrize("words", [b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b'{"process": 1}\n', b"", BEYOND])
def test_strangers(
    port: int, tmp_path: Path, room: Room, words: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    """Who says something else is sent away."""

    def strange() -> None:
        room.once("listening")
        with socket.create_connection(("localhost", port)) as line:
            line.sendall(words)

    assert meet(port, tmp_path, {}, {"first": strange}) == ["", ""]
    assert f"came to localhost:{port} with something else" in capfd.readouterr().err


def test_a_port_that_is_taken(port: int, tmp_path: Path) -> None:
    with socket.create_server(("", port)):
        [heard] = meet(port, tmp_path, {}, count=2)
    assert heard.startswith(f"process 0 cannot listen at port {port} (Address already in use): choose")
