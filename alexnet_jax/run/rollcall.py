"""Before JAX joins its processes: they meet at process 0's port, and hear together whether all is well.

JAX itself ends a process with a stack trace when another is missing, and says nothing while it waits. Here
each process says who it is and what it would run; process 0 compares, and everybody gets the same answer.
Lines of JSON over TCP, on the port that JAX's own service takes afterwards.
"""

import contextlib
import json
import os
import resource
import secrets
import select
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_jax.errors import RefusedError
from alexnet_jax.run.cluster import Cluster

LONGEST = 1 << 20  # bytes of a line
PAUSE = 0.5  # seconds between two attempts
SILENCE = 10  # seconds after which a wait is spoken of, and again
SEEING = 10  # seconds that a shared folder may take to show a new file
LATE = 20  # seconds for which those still to come are waited for when all will be refused

Facts = dict[str, Any]
Compare = Callable[[Facts, Facts], str | None]  # what differs between two processes, in words


@dataclass(frozen=True)
class Present:
    """A process that has come."""

    process: int
    host: str
    facts: Facts
    problem: str | None
    count: int  # of processes, as it was told
    line: "Line | None"

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"

    def left(self) -> bool:
        """Whether it has gone; its line is closed then."""
        if self.line.gone:
            self.line.close()
            return True
        return False


class Line:
    """Objects to and from another process."""

    def __init__(self, connection: socket.socket):
        self._connection = connection
        self._file = connection.makefile("rb")

    def send(self, words: Facts) -> None:
        self._connection.sendall(json.dumps(words).encode() + b"\n")

    def receive(self, seconds: float) -> Facts:
        """The next object; OSError where there is none."""
        self._connection.settimeout(max(seconds, 0.1))
        text = self._file.readline(LONGEST)
        try:
            words = json.loads(text) if text.endswith(b"\n") else None
        except ValueError:
            words = None
        if not isinstance(words, dict):
            raise ConnectionError("what came is not part of a roll call")
        return words

    @property
    def gone(self) -> bool:
        """Whether the other one has left; it has nothing to say now."""
        readable = select.poll()  # which knows files of any number
        readable.register(self._connection, select.POLLIN)
        return bool(readable.poll(0))

    def close(self) -> None:
        """Waits for the other one to close first: the port is free again at once."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
            self._connection.settimeout(1)
            self._connection.recv(1)
        self._file.close()
        self._connection.close()


class Patience:
    """A wait that speaks of itself, and has an end."""

    def __init__(self, seconds: int):
        self.seconds, self.began, self._spoken = seconds, time.monotonic(), 0
        self._end = self.began + seconds

    @property
    def left(self) -> float:
        return self._end - time.monotonic()

    def shorten(self, seconds: int) -> None:
        self._end = min(self._end, time.monotonic() + seconds)

    def tell(self, what: str) -> None:
        gone = int(time.monotonic() - self.began)
        if gone >= self._spoken + SILENCE:
            self._spoken = gone
            print(f"waiting for {what}, {gone} s of at most {self.seconds} s", file=sys.stderr, flush=True)


def roll_call(
    cluster: Cluster, folder: Path, facts: Facts, problem: str | None, compare: Compare, seconds: int
) -> int:
    """How many hosts there are, once all processes are there, agree, and see `folder`; or all are refused."""
    host = socket.gethostname()
    hello = {"process": cluster.process, "processes": cluster.processes, "host": host}
    hello |= {"facts": json.loads(json.dumps(facts)), "problem": problem}
    patience = Patience(seconds)
    answer = _preside if cluster.process == 0 else _answer
    words = answer(cluster, folder, hello, compare, patience)
    if words["refusal"]:
        raise RefusedError(words["refusal"])
    return words["hosts"]


def _preside(cluster: Cluster, folder: Path, hello: Facts, compare: Compare, patience: Patience) -> Facts:
    """Process 0: waits for all, compares, tells all."""
    first = Present(0, hello["host"], hello["facts"], hello["problem"], cluster.processes, None)
    came: list[Present] = []
    refusal = first.problem and f"{first}: {first.problem}"
    with contextlib.closing(_listen(cluster)) as listener:
        while len(came) < cluster.processes - 1:
            if refusal:
                patience.shorten(LATE)  # from the first fault on: they shall hear of it too
            missing = sorted(set(range(1, cluster.processes)) - {one.process for one in came})
            names = f"process{'es' if len(missing) > 1 else ''} {_some(missing)}"
            if patience.left <= 0:
                refusal = refusal or (
                    f"{names} of {cluster.processes} did not come to {cluster.address} within "
                    f"{patience.seconds} s; {len(came) + 1} did"
                )
                break
            patience.tell(f"{names} of {cluster.processes} at {cluster.address}")
            new = _let_in(cluster, listener)
            came = [one for one in came if not one.left()]
            if new:
                refusal = refusal or _fault(new, first, came, compare)
                came.append(new)
    refusal = refusal or _share(folder, first.host, came)
    words = {"refusal": refusal, "hosts": len({one.host for one in (first, *came)})}
    for one in came:
        with contextlib.suppress(OSError):
            one.line.send(words)
    for one in came:
        one.line.close()
    return words


def _some(numbers: list[int]) -> str:
    """The first of them."""
    shown = ", ".join(map(str, numbers[:5]))
    return shown if len(numbers) <= 5 else f"{shown} and {len(numbers) - 5} more"


def _let_in(cluster: Cluster, listener: socket.socket) -> Present | None:
    """The next process, if one comes now."""
    try:
        connection, (peer, *_) = listener.accept()
    except TimeoutError:
        return None
    line = Line(connection)
    try:
        words = line.receive(5)
        number, count = words["process"], words["processes"]
        if number not in range(count):
            raise ConnectionError(f"it says that it is process {number} of {count}")
        return Present(number, words["host"], words["facts"], words["problem"], count, line)
    except (OSError, KeyError, TypeError) as error:
        print(f"{peer} came to {cluster.address} with something else ({error})", file=sys.stderr, flush=True)
        line.close()
        return None


def _fault(new: Present, first: Present, came: list[Present], compare: Compare) -> str | None:
    """What stands in the way of the one who came last, in words that name its host."""
    if new.count != first.count:
        return f"{new} counts {new.count} processes, process 0 counts {first.count}"
    for one in (first, *came):
        if one.process == new.process:
            return f"two processes call themselves {new.process}, on {one.host} and on {new.host}"
    if new.problem:
        return f"{new}: {new.problem}"
    if difference := compare(first.facts, new.facts):
        return f"{new} differs from process 0 on {first.host}: {difference}"
    return None


def _share(folder: Path, host: str, others: list[Present]) -> str | None:
    """Whether all see what one writes."""
    path, text = folder / f".rollcall-{secrets.token_hex(8)}", secrets.token_hex(8)
    try:
        path.write_text(text)
        for one in others:
            one.line.send({"read": path.name})
        for one in others:
            if one.line.receive(SEEING + 5).get("found") != text:
                return (
                    f"{one} does not see what {host} writes to {folder}: --workdir must be on a shared disk"
                )
    except OSError as error:
        return f"{folder} cannot be shared: {error}"
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    return None


def _answer(cluster: Cluster, folder: Path, hello: Facts, compare: Compare, patience: Patience) -> Facts:
    """The others: say who they are, look for process 0's file, hear the answer."""
    del compare
    while True:
        with contextlib.closing(Line(_call(cluster, patience))) as line:
            try:
                line.send(hello)
                while "refusal" not in (words := line.receive(patience.seconds + LATE + 2 * SEEING)):
                    line.send({"found": _look(folder / Path(words["read"]).name)})  # nothing outside it
                return words
            except OSError:  # it has left: it may be on its way back, as a pod that was moved
                time.sleep(PAUSE)


def _look(path: Path) -> str | None:
    """What a file holds, once it is seen."""
    end = time.monotonic() + SEEING
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            return path.read_text()
        time.sleep(PAUSE)
    return None


def _listen(cluster: Cluster) -> socket.socket:
    """Where the others come to: any address of this host, as JAX's own service."""
    port = int(cluster.address.rsplit(":", 1)[1])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, cluster.processes + 1024)  # a file for each of those who come
    with contextlib.suppress(ValueError):  # more than is allowed
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        listener = socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise RefusedError(
            f"process 0 cannot listen at port {port} ({os.strerror(error.errno)}): choose another with "
            "--coordinator_address=HOST:PORT or JAX_COORDINATOR_PORT"
        ) from error
    listener.settimeout(PAUSE)
    return listener


def _call(cluster: Cluster, patience: Patience) -> socket.socket:
    """A connection to process 0, once it is there."""
    host, port = cluster.address.rsplit(":", 1)
    reason = ""
    while patience.left > 0:
        try:
            return socket.create_connection((host.strip("[]"), int(port)), timeout=5)
        except OSError as error:
            reason = error.strerror or str(error)
        patience.tell(f"process 0 of {cluster.processes} at {cluster.address} ({reason})")
        time.sleep(PAUSE)
    raise RefusedError(f"process 0 is not at {cluster.address} after {patience.seconds} s ({reason})")
