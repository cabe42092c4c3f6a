"""The packages that are installed, against the lists of this project and what they ask of each other."""

from __future__ import annotations  # so that an old Python gets as far as its finding

import platform
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from alexnet_jax.doctor.findings import FIX, OK, WARN, Finding, Judged, check

ROOT = Path(__file__).parents[2]
LIST, GPU_LIST, TPU_LIST = "requirements-cpu.txt", "requirements.txt", "requirements-tpu.txt"
# Of the list; runs need all the others.
FOR_TESTS = {"pytest", "pytest-xdist", "hypothesis", "ruff", "mypy", "nbformat", "nbclient", "ipykernel"}
# The same modules under another name.
ALIKE = {"tensorflow-cpu": "tensorflow", "opencv-python-headless": "opencv-python"}
CUDA = ("jax-cuda12-plugin", "jax-cuda13-plugin")
FAMILY = ("jax", "jaxlib", "libtpu", *CUDA, "jax-cuda12-pjrt", "jax-cuda13-pjrt")  # built together


def installed(root: Path = ROOT) -> Iterator[Finding]:
    """Python, JAX and its parts, all the other packages."""
    yield check("python", python, root)
    yield check("jax", family)
    yield check("packages", packages, root)


def python(root: Path) -> Judged:
    from packaging.specifiers import SpecifierSet  # which may not be installed

    found, file = platform.python_version(), root / "pyproject.toml"
    wanted = re.search(r'^requires-python = "(.*)"', file.read_text() if file.exists() else "", re.MULTILINE)
    if wanted and not SpecifierSet(wanted[1]).contains(found, prereleases=True):
        return FIX, f"{found}; this project needs {wanted[1]}: make a virtual environment of a newer one"
    return OK, f"{found}, {platform.machine()}"


def family() -> Judged:
    """JAX and the parts that are built for it, by what they themselves ask for."""
    from packaging.requirements import Requirement

    there = {name: found for name in FAMILY if (found := version(name))}
    for name in ("jax", "jaxlib"):
        if name not in there:
            return FIX, f"{name} is missing: pip install -r {LIST}"
    for owner in there:
        for line in map(Requirement, metadata.requires(owner) or ()):
            # An extra of JAX's asks for another jaxlib than JAX itself does.
            ours = line.name in there and not (line.marker and line.name == "jaxlib")
            if ours and not line.specifier.contains(there[line.name], prereleases=True):
                found = GPU_LIST if set(CUDA) & set(there) else TPU_LIST if "libtpu" in there else LIST
                return FIX, (
                    f"{owner} {there[owner]} and {line.name} {there[line.name]} do not belong together, it "
                    f"needs {line.specifier}: pip install -U -r {found}"
                )
    return OK, f"{', '.join(f'{name} {found}' for name, found in there.items())}: they belong together"


def packages(root: Path) -> Judged:
    """The packages that runs need, at the versions that the list asks for."""
    from packaging.requirements import Requirement

    if not (root / LIST).exists():
        return WARN, f"not compared: there is no {LIST} in {root}"
    lines = (line.partition("#")[0].strip() for line in (root / LIST).read_text().splitlines())
    wrong, right = [], []
    for wanted in (Requirement(line) for line in lines if line and not line.startswith("-")):
        found = version(wanted.name) or version(ALIKE.get(wanted.name, wanted.name))
        if found is None and wanted.name not in FOR_TESTS:
            wrong.append(f"{wanted.name} is missing")
        elif found is not None and not wanted.specifier.contains(found, prereleases=True):
            wrong.append(f"{wanted.name} is {found}, not {wanted.specifier}")
        elif found is not None:
            right.append(f"{wanted.name} {found}")
    if wrong:
        return FIX, f"{'; '.join(wrong)}: pip install -U -r {LIST}"
    return OK, f"{', '.join(right)}, as {LIST} asks"


def version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
