"""Two hosts on this machine, with names, addresses and a wire between them that can be cut.

Network namespaces: what runs in one sees its own loopback and its own end of the wire, and nothing else.
Needs Debian's iproute2, and root.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

NAMES = ("east", "west")


def missing() -> str:
    """Why there can be no such hosts here; "" if there can."""
    absent = [name for name in ("ip", "unshare") if shutil.which(name) is None]
    if absent:
        return f"no {', '.join(absent)}: apt-get install iproute2 util-linux"
    return "" if os.geteuid() == 0 else "network namespaces are made by root"


class Hosts:
    """`east` and `west`, joined by one wire."""

    def __init__(self, names: tuple[str, str], addresses: tuple[str, str]):
        self._names, self.addresses = names, addresses

    def words(self, host: int, *words: str) -> list[str]:
        """A command as it is started on one of the two."""
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', NAMES[host], *words]
        return ["ip", "netns", "exec", self._names[host], *named]

    def cut(self) -> None:
        """From now on nothing arrives, and nobody is told."""
        _ip("-n", self._names[1], "link", "set", "wire", "down")

    def mend(self) -> None:
        _ip("-n", self._names[1], "link", "set", "wire", "up")


@contextlib.contextmanager
def hosts_apart() -> Iterator[Hosts]:
    """Both hosts, until the end."""
    base = f"alexnet-{os.getpid()}"
    names, addresses = (f"{base}-{NAMES[0]}", f"{base}-{NAMES[1]}"), ("10.91.0.1", "10.91.0.2")
    table = "127.0.0.1 localhost\n" + "".join(map("{} {}\n".format, addresses, NAMES))
    with contextlib.ExitStack() as stack:
        for name in names:
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "delete", name)
            own = Path("/etc/netns") / name  # laid over /etc by ip netns exec
            own.mkdir(parents=True)
            stack.callback(shutil.rmtree, own)
            (own / "hosts").write_text(table)
        _ip("-n", names[0], "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", names[1])
        for name, address in zip(names, addresses, strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "wire")
            for device in ("lo", "wire"):
                _ip("-n", name, "link", "set", device, "up")
        yield Hosts(names, addresses)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
