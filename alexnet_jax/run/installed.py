"""Which packages are installed, against the lists of this project; with nothing but Python's own modules."""

from __future__ import annotations  # an old Python is told so, in a line

import operator
import platform
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from alexnet_jax.run.findings import MEND, OK, WARN, Answer, Finding, look

ROOT = Path(__file__).parents[2]
LIST, GPU_LIST, TPU_LIST = "requirements-cpu.txt", "requirements.txt", "requirements-tpu.txt"
# Of the list; runs need all the others.
FOR_TESTS = {"pytest", "pytest-xdist", "hypothesis", "ruff", "mypy", "nbformat", "nbclient", "ipykernel"}
SHOWN = (
    "flax",
    "optax",
    "orbax-checkpoint",
    "tensorflow-cpu",
    "tensorflow-datasets",
    "clu",
    "ml_collections",
)
# The same modules under another name.
ALIKE = {"tensorflow-cpu": "tensorflow", "opencv-python-headless": "opencv-python"}
# What is built together.
FAMILY = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin")
FAMILY += ("jax-cuda12-pjrt", "jax-cuda13-pjrt")
CUDA = ("jax-cuda12-plugin", "jax-cuda13-plugin")

_REQUIREMENT = re.compile(r"([\w.-]+)\s*(?:\[[^]]*\])?\s*([^;#]*)(;[^#]*)?")
_BOUND = re.compile(r"(==|!=|>=|<=|<|>)\s*([\w.*]+)")
_COMPARED = {">=": operator.ge, "<=": operator.le, "<": operator.lt, ">": operator.gt}


def installed(root: Path = ROOT) -> Iterator[Finding]:
    """Python, JAX and its parts, all the other packages."""
    yield look("python", python, root)
    yield look("jax", family)
    yield look("packages", packages, root)


def python(root: Path) -> Answer:
    """Python itself."""
    found, file = platform.python_version(), root / "pyproject.toml"
    wanted = re.search(r'^requires-python = "(.*)"', file.read_text() if file.exists() else "", re.MULTILINE)
    if wanted and not fits(found, wanted[1]):
        return MEND, f"{found}; this project needs {wanted[1]}: make a virtual environment of a newer one"
    return OK, f"{found}, {platform.machine()}"


def family() -> Answer:
    """JAX and the parts that are built for it, by what they themselves ask for."""
    there = {name: found for name in FAMILY if (found := version(name))}
    for name in ("jax", "jaxlib"):
        if name not in there:
            return MEND, f"{name} is missing: pip install -r {LIST}"
    for owner in there:
        for name, wanted, marker in map(split, metadata.requires(owner) or ()):
            # An extra of JAX's asks for another jaxlib than JAX itself does.
            if name in there and not (marker and name == "jaxlib") and not fits(there[name], wanted):
                return MEND, (
                    f"{owner} {there[owner]} and {name} {there[name]} do not belong together, it needs "
                    f"{wanted}: pip install -U -r {best_list(there)}"
                )
    listed = ", ".join(f"{name} {found}" for name, found in there.items())
    return OK, f"{listed}: they belong together"


def packages(root: Path) -> Answer:
    """Everything that runs need, at the versions that were asked for."""
    if not (root / LIST).exists():
        return WARN, f"not compared: there is no {LIST} in {root}"
    missing, wrong, right = [], [], {}
    for name, wanted, _ in map(split, requirements(root / LIST)):
        found = version(name) or version(ALIKE.get(name, name))
        if name not in FOR_TESTS and not found:
            missing.append(name)
        elif found and not fits(found, wanted):
            wrong.append(f"{name} is {found}, not {wanted}")
        elif found:
            right[name] = found
    if missing:
        wrong.append(f"{', '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing")
    if wrong:
        return MEND, f"{'; '.join(wrong)}: pip install -U -r {LIST}"
    listed = ", ".join(f"{name} {right.pop(name)}" for name in SHOWN)
    return OK, f"{listed} and {len(right)} more, as {LIST} asks"


def best_list(there: dict[str, str]) -> str:
    """The list that has the parts of JAX that are there."""
    if any(name in there for name in CUDA):
        return GPU_LIST
    return TPU_LIST if "libtpu" in there else LIST


def requirements(path: Path) -> list[str]:
    """The lines that ask for something."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("-")]


def split(line: str) -> tuple[str, str, str]:
    """Of a requirement: the name, the versions, the condition."""
    name, wanted, marker = _REQUIREMENT.match(line).groups()
    return name, wanted.strip(), (marker or "").strip()


def version(name: str) -> str | None:
    """What is installed of a package."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def fits(found: str, wanted: str) -> bool:
    """Whether a version is within bounds such as >=0.15,<1 or ==0.0.42.*"""
    return all(_holds(found, sign, bound) for sign, bound in _BOUND.findall(wanted))


def _holds(found: str, sign: str, bound: str) -> bool:
    if sign in _COMPARED:
        return _COMPARED[sign](*_padded(_numbers(found), _numbers(bound)))
    least = _numbers(bound)
    here, there = _padded(_numbers(found), least)
    if bound.endswith("*"):
        here, there = here[: len(least)], least
    return (here == there) == (sign == "==")


def _numbers(text: str) -> tuple[int, ...]:
    """Of 0.11.0.dev2026 the release, 0.11.0."""
    return tuple(map(int, re.match(r"\d+(\.\d+)*", text)[0].split(".")))


def _padded(one: tuple[int, ...], other: tuple[int, ...]) -> list[tuple[int, ...]]:
    """As 1.0 is 1."""
    length = max(len(one), len(other))
    return [numbers + (0,) * (length - len(numbers)) for numbers in (one, other)]
