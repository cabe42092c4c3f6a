"""Compares what all processes of a run must have in common, before anything is compiled.

Through the key-value store of JAX's coordinator, as processes that differ may also differ in their devices.
"""

import dataclasses
import functools
import hashlib
import json
import platform
import secrets
import socket
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import alexnet_jax
from alexnet_jax.cluster.joining import cluster_state
from alexnet_jax.config.changes import changes
from alexnet_jax.config.fields import Config, DataConfig
from alexnet_jax.config.rules import HOSTS_OWN
from alexnet_jax.data.packed import DRAWN, find_packed
from alexnet_jax.errors import RefusedError, UserError

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets")
PACKAGES += ("libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin", "nvidia-nccl-cu12", "nvidia-nccl-cu13")
SEEING = 10  # seconds that a shared folder may take to show a new file

Facts = dict[str, Any]


def preflight(checks: Callable[[], Config], workdir: Path, seconds: int) -> Config:
    """The config that this process's own `checks` give; where one process refuses or differs, all do."""
    if cluster_state().client is None:
        return checks()
    config, facts = None, {"host": socket.gethostname()}
    shared = _SharedFile(workdir, seconds)
    try:
        config = checks()
        shared.write()
        facts |= _facts(config)
    except UserError as error:
        facts["problem"] = str(error)
    facts["sees"] = shared.seen()
    try:
        if refusal := _verdict(facts, seconds):
            raise RefusedError(refusal)
    finally:
        shared.remove()
    return config


def _verdict(facts: Facts, seconds: int) -> str:
    """The reason to refuse the run, the same words in all processes; "" if there is none."""
    state = cluster_state()
    state.client.key_value_set(f"alexnet/facts/{state.process_id}", json.dumps(facts))
    if state.process_id == 0:
        numbers = range(state.num_processes)
        told = [json.loads(_get(f"alexnet/facts/{number}", seconds)) for number in numbers]
        faults = (_fault(number, told) for number in numbers)
        state.client.key_value_set("alexnet/verdict", next(filter(None, faults), ""))
    return _get("alexnet/verdict", 2 * seconds)


def _get(key: str, seconds: int) -> str:
    return cluster_state().client.blocking_key_value_get(key, seconds * 1000)


class _SharedFile:
    """A file that process 0 writes into the folder of the run, for the others to see."""

    def __init__(self, folder: Path, seconds: int):
        self._seconds, self._text = seconds, secrets.token_hex(8)
        self._first = cluster_state().process_id == 0
        self._path = folder / f".shared-{self._text}"

    def write(self) -> None:
        if self._first:
            self._path.write_text(self._text)

    def seen(self) -> bool:
        """Whether this process sees it; also where there is none, as process 0 was refused."""
        if self._first:
            cluster_state().client.key_value_set("alexnet/shared", self._text if self._path.exists() else "")
            return True
        text, end = _get("alexnet/shared", self._seconds), time.monotonic() + SEEING
        path = self._path.with_name(f".shared-{text}")
        while text and not path.exists() and time.monotonic() < end:
            time.sleep(0.5)
        return not text or path.exists()

    def remove(self) -> None:
        if self._first:
            self._path.unlink(missing_ok=True)


def _fault(number: int, told: list[Facts]) -> str:
    """A process's own problem, or how it differs from process 0; "" if neither."""
    first, own = told[0], told[number]
    name = f"process {number} on {own['host']}"
    if "problem" in own:
        return f"{name}: {own['problem']}"
    if "problem" in first:
        return ""
    if not own["sees"]:
        return f"{name} does not see what {first['host']} writes to --workdir: it must be on a shared disk"
    difference = _difference(first, own)
    return f"{name} differs from process 0 on {first['host']}: {difference}" if difference else ""


def _facts(config: Config) -> Facts:
    versions = {name: _version(name) for name in PACKAGES}
    return {
        "config": dataclasses.asdict(config),
        "versions": {"python": ".".join(platform.python_version_tuple()[:2]), **versions},
        "code": _code(),
        "gpu": not config.mesh.cpu_devices and any(Path("/dev").glob("nvidia[0-9]*")),
        "data": _digest(config.data),
    }


def _difference(ours: Facts, theirs: Facts) -> str:
    # Other code may have other fields: it comes first.
    for change in changes(ours["versions"], theirs["versions"]):
        return f"it has {change.name} {change.now}, not {change.before}"
    if ours["gpu"] != theirs["gpu"]:
        return f"it has {'a' if theirs['gpu'] else 'no'} GPU"
    if ours["code"] != theirs["code"]:
        return f"its files of alexnet_jax are others (digest {theirs['code']}, not {ours['code']})"
    for change in changes(ours["config"], theirs["config"]):
        if not change.has(HOSTS_OWN):
            return f"its config has {change.name}={change.now}, not {change.before}"
    if ours["data"] != theirs["data"]:
        name = ours["config"]["data"]["name"]
        return f"its data set {name} has other pictures (digest {theirs['data']}, not {ours['data']})"
    return ""


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _digest(config: DataConfig) -> str:
    """The digest of the data set on this host; what needs no files is made first."""
    if config.name in DRAWN:
        from alexnet_jax.data.packing import pack_toyshapes

        pack_toyshapes(config)
    return find_packed(config).facts["digest"]


@functools.cache
def _code() -> str:
    """A digest of this package's own files."""
    root, hashed = Path(alexnet_jax.__file__).parent, hashlib.blake2b(digest_size=8)
    for path in sorted(root.rglob("*.py")):
        hashed.update(f"{path.relative_to(root)}".encode() + path.read_bytes())
    return hashed.hexdigest()
