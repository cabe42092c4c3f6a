"""What all processes of a run must have in common, compared before anything is compiled."""

import dataclasses
import functools
import hashlib
import platform
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import alexnet_jax
from alexnet_jax.config import Config
from alexnet_jax.data.packed import DRAWN, find_packed
from alexnet_jax.errors import UserError
from alexnet_jax.run.cluster import Cluster
from alexnet_jax.run.rollcall import Facts, roll_call
from alexnet_jax.run.workdir import Workdir, among, differences

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets")
PACKAGES += ("libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin", "nvidia-nccl-cu12", "nvidia-nccl-cu13")
# Where each host may have its own.
OWN = ("data.dir", "data.threads", "data.keep_mib")


def preflight(
    cluster: Cluster | None, workdir: Workdir, checks: Callable[[], Config], seconds: int
) -> Config:
    """The config that this process's own `checks` give.

    Several processes compare what they are about to do, and hear of each other's problems.
    """
    if cluster is None:
        return checks()
    config, problem, facts = None, None, {}
    try:
        config = checks()
        facts = _facts(config)
    except UserError as error:
        problem = str(error)
    roll_call(cluster, workdir.path, facts, problem, _compare, seconds)
    return config


def _facts(config: Config) -> Facts:
    versions = {name: _version(name) for name in PACKAGES}
    return {
        "config": dataclasses.asdict(config),
        "versions": {"python": ".".join(platform.python_version_tuple()[:2]), **versions},
        "code": _code(),
        "gpu": not config.mesh.cpu_devices and any(Path("/dev").glob("nvidia[0-9]*")),
        "data": _digest(config),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _digest(config: Config) -> str:
    """Of the data set on this host; what needs no files is made first."""
    if config.data.name in DRAWN:
        from alexnet_jax.data.packing import pack_toyshapes

        pack_toyshapes(config.data)
    return find_packed(config.data).facts["digest"]


def _compare(ours: Facts, theirs: Facts) -> str | None:
    # Other code may have other fields: it comes first.
    for name, one, other in differences(ours["versions"], theirs["versions"]):
        return f"it has {name} {other}, not {one}"
    if ours["gpu"] != theirs["gpu"]:
        return f"it has {'a' if theirs['gpu'] else 'no'} GPU"
    if ours["code"] != theirs["code"]:
        return f"its files of alexnet_jax are others (digest {theirs['code']}, not {ours['code']})"
    for name, one, other in differences(ours["config"], theirs["config"]):
        if not among(name, OWN):
            return f"its config has {name}={other}, not {one}"
    if ours["data"] != theirs["data"]:
        name = ours["config"]["data"]["name"]
        return f"its data set {name} has other pictures (digest {theirs['data']}, not {ours['data']})"
    return None


@functools.cache
def _code() -> str:
    """A digest of this package's own files."""
    root, hashed = Path(alexnet_jax.__file__).parent, hashlib.blake2b(digest_size=8)
    for path in sorted(root.rglob("*.py")):
        hashed.update(f"{path.relative_to(root)}".encode() + path.read_bytes())
    return hashed.hexdigest()
