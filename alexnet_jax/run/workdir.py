"""What a run leaves in its folder besides checkpoints: the config and the log of its figures."""

import contextlib
import dataclasses
import json
import math
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alexnet_jax.build import build
from alexnet_jax.config import Config
from alexnet_jax.errors import ConfigError, RefusedError

# A run keeps its network, its data and the order in which it sees them.
FIXED = (
    *("seed", "init_from", "network", "data.name", "data.size", "data.encoding"),
    *("train.batch_size", "train.order", "train.parts"),
)
# What says nothing of how its figures come about.
FREE = (
    *("mesh", "data.dir", "data.read_ahead", "data.threads", "data.keep_mib", "data.trace"),
    *("train.log_every", "train.stall_steps", "evaluation.batch_size", "checkpoint", "limits"),
    *("expected", "profile_steps", "wandb"),
)
# What lines of `metrics.jsonl` and of `trace.jsonl` must have.
FIGURES = {
    "step": int,
    "split": str,
    **dict.fromkeys(("loss", "top1_error", "top5_error"), float | int | None),
}
TRACED = {"step": int, "digest": str}


class Workdir:
    """The folder of a run; where that is many processes, the first of them writes."""

    def __init__(self, path: str, process: int = 0):
        self.writes = process == 0
        self._unwritten: list[dict[str, Any]] = []  # lines that the disk had no room for
        try:
            self.path = Path(path).expanduser().absolute()
        except RuntimeError as error:  # ~somebody who is not known here
            raise RefusedError(f"there is no folder {path}: {error}") from error
        self.config_path = self.path / "config.json"
        self.pictures_path = self.path / "pictures.npz"
        self.metrics_path = self.path / "metrics.jsonl"
        self.trace_path = self.path / ("trace.jsonl" if self.writes else f"trace-{process}.jsonl")
        self.divergence_path = self.path / "diverged.json"
        self.checkpoints = self.path / "checkpoints"

    @property
    def begun(self) -> bool:
        """Whether anything has been saved."""
        return any(path.name.isdecimal() for path in self.checkpoints.glob("[0-9]*"))  # not half-written ones

    def check(self) -> None:
        """Refuses a folder that cannot be written, or whose figures cannot be read."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path) as file:
                file.write(bytes(4096))
        except OSError as error:
            raise RefusedError(f"cannot write to --workdir={self.path}: {error.strerror}") from error
        self.metrics()

    def check_same(self, config: Config) -> None:
        """Refuses a folder that holds another run; what has saved nothing may be started anew."""
        others = [change for change in self.changes(config) if among(change[0], FIXED)]
        self._refuse(others, "choose another --workdir, or say --allow_config_change")

    def changes(self, config: Config) -> list[tuple[str, Any, Any]]:
        """Where a config differs from that of the run that is to go on: fields, before and now."""
        if not (self.begun and self.config_path.exists()):
            return []
        return list(differences(dataclasses.asdict(self.read_config()), dataclasses.asdict(config)))

    def check_figures(self, config: Config) -> None:
        """Refuses a folder of figures that come about in another way."""
        old = self.read_config() if self.config_path.exists() else config
        changes = differences(dataclasses.asdict(old), dataclasses.asdict(config))
        self._refuse([change for change in changes if not among(change[0], FREE)], "choose another --workdir")

    def _refuse(self, changes: list[tuple[str, Any, Any]], way_out: str) -> None:
        if changes:
            name, before, now = changes[0]
            raise RefusedError(
                f"{self.path} holds a run with {name}={before}, this config says {now}; {way_out}"
            )

    def adopt(self, config: Config) -> None:
        """Writes `config.json`."""
        if self.writes:
            replace_text(self.config_path, json.dumps(dataclasses.asdict(config), indent=2) + "\n")

    def read_config(self) -> Config:
        """The config of the run."""
        if not self.config_path.exists():
            raise RefusedError(f"{self.path} holds no run: there is no config.json")
        try:
            return build(json.loads(self.config_path.read_text()))
        except ConfigError as error:
            raise RefusedError(
                f"{self.config_path} does not fit this version ({error}): go on with that which wrote it "
                "or choose another --workdir"
            ) from error
        except (ValueError, RecursionError, OSError) as error:
            raise RefusedError(f"{self.config_path} is corrupt: {error}") from error

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`, and what it had no room for; none for who does not write it."""
        return _read_lines(self.metrics_path, FIGURES) + self._unwritten if self.writes else []

    def final(self) -> dict[str, Any] | None:
        """The closing line of a finished run."""
        lines = self.metrics()
        return lines[-1] if lines and lines[-1]["split"] == "final" else None

    def forget_after(self, step: int, validated: int) -> None:
        """Drops what a resumed run will write again; its last validation was at `validated`."""
        ends = {"final": -1, "validation": validated}
        logs = {self.metrics_path: FIGURES} if self.writes else {}
        for path, kinds in (logs | {self.trace_path: TRACED}).items():
            kept = [x for x in _read_lines(path, kinds) if x["step"] <= ends.get(x.get("split"), step)]
            if path.exists():
                replace_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        if self.writes:
            self.divergence_path.unlink(missing_ok=True)

    def append(self, line: dict[str, Any]) -> None:
        """Adds a line to `metrics.jsonl`, at once if there is room; else `write_out` does."""
        if self.writes:
            self._unwritten.append(line)
            self.write_out()

    def write_out(self) -> str:
        """Brings all lines into `metrics.jsonl`, or says why not."""
        try:
            if self._unwritten:
                _append(self.metrics_path, self._unwritten)
                self._unwritten.clear()
        except RefusedError as error:
            return str(error)
        return ""

    def write_divergence(self, found: dict[str, Any]) -> str:
        """What a step had found that could not be taken, for people; where it is, or why it is nowhere."""
        try:
            if self.writes:
                replace_text(self.divergence_path, to_json(found) + "\n")
        except RefusedError as error:
            return str(error)
        return f"its pictures in {self.divergence_path}"

    def trace(self, step: int, digest: int) -> None:
        """Adds what this process has read for step number `step`, counted from 0."""
        _append(self.trace_path, [{"step": step + 1, "digest": f"{digest:016x}"}])


def to_json(values: dict[str, Any]) -> str:
    """One line of JSON, which knows no infinities: what is not finite becomes null."""
    return json.dumps(_finite(values))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def among(name: str, fields: tuple[str, ...]) -> bool:
    """Whether a field, or a group that it is in, is listed."""
    return any(name == field or name.startswith(f"{field}.") for field in fields)


def differences(old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The fields of two configs that differ, with both values."""
    after = dict(leaves(new))
    for name, value in leaves(old):
        if after.get(name) != value:
            yield name, value, after.get(name)


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of nested groups, by their paths."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _read_lines(path: Path, kinds: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects of a file of lines, with members of these kinds; one cut off by a crash ends the list."""
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


def _append(path: Path, lines: list[dict[str, Any]]) -> None:
    """All of them or none."""
    before = path.stat().st_size if path.exists() else 0
    try:
        with path.open("a") as file:
            file.writelines(to_json(line) + "\n" for line in lines)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.truncate(path, before)
        raise RefusedError(f"cannot write to {path}: {error.strerror}; the same command goes on") from error


def replace_text(path: Path, text: str) -> None:
    """Replaces a file of text, as `replace_bytes` does."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Replaces a file at once: a reader or a crash sees the old one or the new, of one of its writers."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise RefusedError(f"cannot write {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
