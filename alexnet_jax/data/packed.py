"""A packed data set on disk, found and checked in a second, without TensorFlow.

A folder is a packed set once it holds `packed.json`, which is written last, and all files named there.
"""

import json
import os
import tempfile
from dataclasses import dataclass
from typing import Any

from etils import epath

from alexnet_jax.config.fields import DataConfig
from alexnet_jax.errors import ConfigError, RefusedError

MARKER = "packed.json"
MAKING = "making"  # notes of a set that is being made
STATISTICS = "statistics.npz"
METADATA = ("dataset_info.json", "features.json")  # by which TFDS opens it
BAD_PICTURES = "bad_pictures.jsonl"
DRAWN = {"toyshapes": 10, "toyshapes21": 21}  # the data sets that need no files, and their classes
JPEG_BYTES = 0.6  # of a pixel, about, at quality 95


@dataclass(frozen=True)
class PackedFiles:
    """A whole packed set."""

    path: epath.Path
    facts: dict[str, Any]  # what its marker says


def data_dir(chosen: str) -> epath.Path:
    """The folder, or the bucket, of all data sets."""
    where = chosen or os.environ.get("ALEXNET_DATA_DIR") or "~/.cache/alexnet_jax"
    path = epath.Path(where).expanduser()
    if os.fspath(path).startswith("~"):
        raise RefusedError(f"there is no folder {where}: {path.parts[0]} is nobody's home here")
    return path if "://" in where else path.absolute()


def packed_path(config: DataConfig) -> epath.Path:
    """The folder of a packed data set."""
    name = config.name.replace("/", "-").replace(":", "-")
    return data_dir(config.dir) / "packed" / f"{name}-{config.size}-{config.encoding}"


def find_packed(config: DataConfig) -> PackedFiles:
    """A whole packed set, or a refusal that says what is missing and how to make it."""
    path = packed_path(config)
    if not (path / MARKER).exists():
        raise RefusedError(f"{_what_is_there(config, path)}; {how_to_pack(config)}")
    try:
        facts = _read(path / MARKER)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RefusedError(
            f"{path / MARKER} cannot be read; delete {path}, and {how_to_pack(config)}"
        ) from error
    for split in ("train", "validation"):
        if split not in facts["splits"]:
            raise RefusedError(f"{path} has no {split} split; delete it, and {how_to_pack(config)}")
    files = {STATISTICS, *METADATA}.union(*(split["files"] for split in facts["splits"].values()))
    missing = sorted(files - {file.name for file in path.iterdir()})
    if missing:
        raise RefusedError(
            f"{path} lacks {len(missing)} of its {len(files)} files, such as {missing[0]}; "
            f"delete it, and {how_to_pack(config)}"
        )
    return PackedFiles(path, facts)


def _read(marker: epath.Path) -> dict[str, Any]:
    """The facts in a marker, if it has all that it must."""
    facts = json.loads(marker.read_text())
    for name in ("name", "source", "form", "classes", "digest", "left_out"):
        facts[name]
    for split in facts["splits"].values():
        split["pictures"]
        for file in split["files"].values():
            file["rows"], file["digest"]
    return facts


def refuse_early(config: DataConfig, classes: int) -> None:
    """Says what is wrong before anything else takes time; toyshapes are made where they are missing."""
    there = DRAWN.get(config.name) or find_packed(config).facts["classes"]
    if there != classes:
        raise ConfigError(f"network.classes={classes}, but {config.name} has {there} classes")


def picture_bytes(size: int, encoding: str) -> float:
    """About what a picture takes; of a raw one, what its pixels alone do."""
    return 3 * size**2 if encoding == "raw" else JPEG_BYTES * size**2


def contents(facts: dict[str, Any]) -> str:
    """The contents of a packed set, for a person."""
    counts = ", ".join(f"{split['pictures']} {name}" for name, split in facts["splits"].items())
    bad = f", {facts['left_out']} left out ({BAD_PICTURES})" if facts["left_out"] else ""
    return f"{facts['name']}: {counts} pictures, {facts['classes']} classes{bad}"


def packing_command(config: DataConfig) -> str:
    """The command that makes a packed set from what lies in its usual place."""
    command = f"python -m alexnet_jax.prepare --dataset={config.name}"
    for flag, value, default in (
        ("size", config.size, 256),
        ("encoding", config.encoding, "raw"),
        ("data_dir", config.dir, ""),
    ):
        command += f" --{flag}={value}" if value != default else ""
    return command


def how_to_pack(config: DataConfig) -> str:
    """Advice where there is no packed set."""
    command = packing_command(config)
    if config.name == "imagenet2012":
        command += " --manual_dir=FOLDER_OF_BOTH_ARCHIVES (or --folder=FOLDER_OF_TRAIN_AND_VAL)"
    elif config.name not in (*DRAWN, "cifar10", "fashion_mnist"):
        command += f" --folder=FOLDER_OF_TRAIN_AND_VAL (without it where TFDS has {config.name})"
    return f"make it with: {command}; or try: make quickstart, which needs no data"


def check_writable(folder: epath.Path) -> None:
    """Refuses a folder in which no data set can be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if "://" not in os.fspath(folder):
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        raise RefusedError(f"cannot write below {folder}: {error.strerror or error}") from error


def _what_is_there(config: DataConfig, path: epath.Path) -> str:
    wanted = f"data set {config.name} ({config.encoding}, {config.size} x {config.size}) is not packed"
    if (path / MAKING).exists():
        return f"{wanted} to the end: {path} is half made"
    if path.exists():
        return f"{wanted}: {path} has no {MARKER}"
    others = sorted(other.name for other in path.parent.glob(f"{path.name.split('-')[0]}-*"))
    beside = f" (only {', '.join(others)})" if others else ""
    return f"{wanted}: there is no {path}{beside}"
