"""One run at a time in a folder: a file says whose it is, and is touched for as long as that run lives."""

import contextlib
import fcntl
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alexnet_jax.errors import REFUSED, RefusedError

NAME = "lock"
BEAT, DEAD = 5, 20  # seconds between touches; without one, after which a run on another machine is dead


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps others out of a folder; takes it over from a run that has died, and refuses if it is alive."""
    path, mine = folder / NAME, _myself()
    while not _take(path, mine):
        if (holder := _holder(path)) is None:  # given back meanwhile
            continue
        if _alive(path, holder, mine["machine"]):
            raise RefusedError(_in_use(folder, holder))
        print(f"{folder} was in use by {_name(holder)}, which is gone", file=sys.stderr, flush=True)
        _remove(path, holder)
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, mine, ended), daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        _remove(path, mine)


def check_free(folder: Path) -> None:
    """Refuses a folder that a run which is alive keeps others out of; takes nothing."""
    holder = _holder(folder / NAME)
    if holder is not None and _alive(folder / NAME, holder, _machine()):
        raise RefusedError(_in_use(folder, holder))


def _in_use(folder: Path, holder: dict[str, Any]) -> str:
    since = f" since {holder['since']}" if "since" in holder else ""
    return (
        f"{folder} is in use by {_name(holder)}{since}; wait until it has ended, or choose another --workdir"
    )


def _myself() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "token": secrets.token_hex(8),
        "started": _started(os.getpid()),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _machine() -> str:
    """What sees the same processes under the same numbers, since it was switched on."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        return socket.gethostname()


def _started(pid: int) -> str | None:
    """When a process of this machine was started, in its own measure; None if it is not alive."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else rest[18]
    except OSError:
        return None if Path("/proc/self").exists() else _answers(pid)


def _answers(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:  # another user's
        pass
    return "alive"


def _take(path: Path, mine: dict[str, Any]) -> bool:
    """Whether there was no such file; now it is ours, and was never there without its words."""
    whole = path.with_name(f".{NAME}.{mine['pid']}.{secrets.token_hex(4)}")
    try:
        whole.write_text(json.dumps(mine))
        _link(whole, path)
    except FileExistsError:
        return False
    except OSError as error:
        raise RefusedError(f"cannot write {path}: {error.strerror}") from error
    finally:
        whole.unlink(missing_ok=True)
    return True


def _link(whole: Path, path: Path) -> None:
    try:
        os.link(whole, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        with path.open("x") as file:
            file.write(whole.read_text())


def _holder(path: Path) -> dict[str, Any] | None:
    """Whose it is; nothing where that cannot be read, None where there is no such file."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _name(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid', '?')} on {holder.get('host', 'an unknown host')}"


def _remove(path: Path, holder: dict[str, Any]) -> None:
    """Deletes it if it is still this one's: another may have been quicker."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as turn:
        folder = os.open(path.parent, os.O_RDONLY)
        turn.callback(os.close, folder)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        if _holder(path) == holder:
            path.unlink()


def _alive(path: Path, holder: dict[str, Any], machine: str) -> bool:
    """On this machine the process is looked for; on another a sign of life is waited for."""
    pid, started = holder.get("pid"), holder.get("started")
    if holder.get("machine") == machine and isinstance(pid, int) and started is not None:
        return _started(pid) == started
    name = _name(holder)
    print(f"{path} is of {name}: waiting for a sign of life, at most {DEAD} s", file=sys.stderr, flush=True)
    first, deadline = _touched(path), time.monotonic() + DEAD
    while first is not None and time.monotonic() < deadline:
        time.sleep(0.2)
        if (now := _touched(path)) != first:
            return now is not None
    return False


def _touched(path: Path) -> int | None:
    try:
        with path.open() as file:  # network file systems look again
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None


def _beat(path: Path, mine: dict[str, Any], ended: threading.Event) -> None:
    while not ended.wait(BEAT):
        with contextlib.suppress(OSError):
            holder = _holder(path)
            if holder and holder.get("token") != mine["token"]:
                # It was taken for dead: stopped, or cut off, for too long.
                print(f"error: {path} is of {_name(holder)} now", file=sys.stderr, flush=True)
                os._exit(REFUSED)
            os.utime(path)
