"""The rooms of the house: nothing points up, the core knows no files, no function is long."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "alexnet_jax").rglob("*.py"))
# What each room may import of this project, itself included: the rooms below it.
GROUND = {"errors", "text", "config", "sharding"}
ROOMS = {
    "errors": set(),
    "text": set(),
    "config": {"errors", "text", "config"},
    "sharding": {"errors", "config", "sharding"},
    "network": {"errors", "config", "sharding", "network"},
    "learning": {"errors", "config", "sharding", "network", "learning"},
    "signals": {"errors"},
    "cli": {"errors", "signals"},
    "arguments": {"errors", "config", "network", "cli"},
    "data": GROUND | {"data"},
    "cluster": GROUND | {"data", "cluster"},
    "storage": GROUND | {"network", "learning", "data", "cluster", "storage"},
    "reporting": GROUND | {"cli", "network", "learning", "data", "storage", "reporting"},
}
ROOMS["training"] = ROOMS["storage"] | ROOMS["reporting"] | {"signals", "training"}
ROOMS["planning"] = GROUND | {"network", "learning", "planning"}
ROOMS["trained"] = ROOMS["training"] | {"trained"}
ROOMS["figures"] = ROOMS["trained"] | {"arguments", "figures"}
ROOMS["inspect"] = ROOMS["trained"] | {"arguments", "planning", "inspect"}
ROOMS["doctor"] = ROOMS["training"] | {"arguments", "planning", "doctor"}
ROOMS["sweep"] = ROOMS["training"] | {"arguments", "sweep"}
ROOMS["__init__"] = {"network"}  # the door for notebooks
ROOMS["commands"] = ROOMS["trained"] | {"arguments", "planning"}
# Within `network`.
ORDER = {
    "alexnet": {"layers", "lrn", "pool", "precision"},
    "batch_norm": {"layers", "precision"},
    "layers": {"precision"},
    "lrn": {"precision"},
    "pool": {"precision"},
    "precision": set(),
    "shapes": {"pool"},
}
PURE = {"network", "learning"}
LIBRARIES = {"jax", "flax", "optax", "numpy", "functools", "itertools"} | {
    "dataclasses",
    "collections",
    "typing",
}


def imports(path: Path) -> list[str]:
    """Every module that a file imports, anywhere in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{name.name}" for name in node.names]
    return found


def room(path: Path) -> str:
    part = path.relative_to(ROOT / "alexnet_jax").parts[0].removesuffix(".py")
    return part if part in ROOMS else "commands"


def test_imports_point_down() -> None:
    for path in FILES:
        own = [name.split(".") for name in imports(path) if name.startswith("alexnet_jax.")]
        assert {name[1] for name in own} <= ROOMS[room(path)], path
        if room(path) == "network" and path.stem in ORDER:
            assert {name[2] for name in own if name[1] == "network"} <= ORDER[path.stem], path


def test_the_core_is_pure() -> None:
    for path in FILES:
        if room(path) in PURE:
            assert {name.split(".")[0] for name in imports(path)} <= LIBRARIES | {"alexnet_jax"}, path


def test_shard_map_stands_in_one_place() -> None:
    assert [path.stem for path in FILES if "shard_map(" in path.read_text()] == ["spread"]


def test_no_function_is_over_60_lines() -> None:
    for path in (
        *FILES,
        *ROOT.glob("configs/*.py"),
        *ROOT.glob("benchmarks/*.py"),
        *ROOT.glob("tests/**/*.py"),
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                length = node.end_lineno - node.lineno + 1
                assert length <= 60, f"{path}: {node.name} has {length} lines"
