"""Small files that are replaced at once, and lines of JSON that are appended whole."""

import contextlib
import json
import math
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alexnet_jax.errors import RefusedError

Record = dict[str, Any]


def replace_text(path: Path, text: str) -> None:
    """Replaces a file of text, as `replace_bytes` does."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Replaces a file at once: a reader, or a crash, sees the old one or the new."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise RefusedError(f"cannot write {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def append_lines(path: Path, lines: Sequence[Record]) -> None:
    """Appends all lines, or none."""
    before = path.stat().st_size if path.exists() else 0
    try:
        with path.open("a") as file:
            file.writelines(to_json(line) + "\n" for line in lines)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.truncate(path, before)
        raise RefusedError(f"cannot write to {path}: {error.strerror}; the same command goes on") from error


def read_lines(path: Path, kinds: Mapping[str, Any]) -> list[Record]:
    """The objects of a file, which must have members of these kinds; without a line cut off by a crash."""
    try:
        text = path.read_text() if path.exists() else ""
        lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    except (ValueError, RecursionError, OSError) as error:  # neither JSON nor even text
        raise RefusedError(f"{path} is corrupt: {error}") from error
    for number, line in enumerate(lines, 1):
        for name, wanted in kinds.items():
            if not (isinstance(line, dict) and name in line and isinstance(line[name], wanted)):
                raise RefusedError(f"{path} is corrupt: line {number} has no {name} as is written there")
    return lines


def to_json(values: Record) -> str:
    """A line of JSON, in which what is not finite becomes null."""
    return json.dumps(_finite(values))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
