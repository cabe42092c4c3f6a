"""A lock on a run's folder, which the operating system drops when its process ends.

On NFS a lock whose host is gone falls when the server's lease ends, about two minutes later. Where a disk has
no locks nothing keeps two runs apart, which is said.
"""

import contextlib
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from alexnet_jax.errors import RefusedError
from alexnet_jax.storage.files import replace_text

NAME, HOLDER = "lock", "lock.json"
WITHOUT_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # what a disk answers that has none


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps others out of a folder, or refuses one that is in use."""
    holder = folder / HOLDER
    with _acquired(folder):
        if left := _read(holder):  # by a process that was killed
            print(f"{folder} was in use by {left}, which is gone", file=sys.stderr, flush=True)
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        replace_text(holder, json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": now}))
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                holder.unlink()


def check_free(folder: Path) -> None:
    """Refuses a folder that is in use."""
    if (folder / NAME).exists():
        with _acquired(folder):
            pass


@contextlib.contextmanager
def _acquired(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / NAME, timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        in_use = f"{folder} is in use by {_read(folder / HOLDER) or 'another run'}"
        raise RefusedError(f"{in_use}; wait until it has ended, or choose another --workdir") from error
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise RefusedError(f"cannot write {folder / NAME}: {error.strerror}") from error
        print(f"{folder} has no locks: two runs in it would mix what they write", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        lock.release()


def _read(holder: Path) -> str:
    """The process that a lock is, or was, held by; nothing where that is not known."""
    try:
        known = json.loads(holder.read_text())
        return f"process {known['pid']} on {known['host']} since {known['since']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
