"""What a run leaves in its folder besides checkpoints: the config and the log of its figures."""

import dataclasses
import json
import math
import secrets
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from alexnet_jax.build import build
from alexnet_jax.config import Config
from alexnet_jax.errors import ConfigError, RefusedError

# A run keeps its network, its data and the order in which it sees them.
FIXED = (
    *("seed", "init_from", "network", "data.name", "data.size", "data.encoding"),
    *("train.batch_size", "train.order"),
)
# What says nothing of how its figures come about.
FREE = (
    *("mesh", "data.dir", "data.read_ahead", "data.threads", "data.keep_mib", "data.trace"),
    *("train.log_every", "train.stall_steps", "evaluation.batch_size", "checkpoint"),
)


class Workdir:
    """The folder of a run; where that is many processes, the first of them writes."""

    def __init__(self, path: str, process: int = 0):
        self.writes = process == 0
        try:
            self.path = Path(path).expanduser().absolute()
        except RuntimeError as error:  # ~somebody who is not known here
            raise RefusedError(f"there is no folder {path}: {error}") from error
        self.config_path = self.path / "config.json"
        self.metrics_path = self.path / "metrics.jsonl"
        self.trace_path = self.path / ("trace.jsonl" if self.writes else f"trace-{process}.jsonl")
        self.checkpoints = self.path / "checkpoints"

    @property
    def begun(self) -> bool:
        """Whether anything has been saved."""
        return any(path.name.isdecimal() for path in self.checkpoints.glob("[0-9]*"))  # not half-written ones

    def check(self, config: Config) -> None:
        """Refuses a folder that cannot be written, or that holds another run."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise RefusedError(f"cannot write to --workdir={self.path}: {error.strerror}") from error
        self.metrics()  # refuses what cannot be read
        # What has saved nothing may be started anew in another way.
        if self.config_path.exists() and self.begun:
            _check_same(self.read_config(), config, self.path, lambda name: among(name, FIXED))

    def check_figures(self, config: Config) -> None:
        """Refuses a folder of figures that come about in another way."""
        if self.config_path.exists():
            _check_same(self.read_config(), config, self.path, lambda name: not among(name, FREE))

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
            raise RefusedError(f"{self.config_path} does not fit this version: {error}") from error
        except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
            raise RefusedError(f"{self.config_path} is corrupt: {error}") from error

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`; none for who does not write it, and could see it half written."""
        return _read_lines(self.metrics_path) if self.writes else []

    def final(self) -> dict[str, Any] | None:
        """The closing line of a finished run."""
        lines = self.metrics()
        return lines[-1] if lines and lines[-1]["split"] == "final" else None

    def forget_after(self, step: int) -> None:
        """Drops the lines that a resumed run will write again."""
        for path in (self.metrics_path, self.trace_path) if self.writes else (self.trace_path,):
            kept = [x for x in _read_lines(path) if x["step"] <= step and x.get("split") != "final"]
            if path.exists():
                replace_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    def append(self, line: dict[str, Any]) -> None:
        """Adds a line to `metrics.jsonl`; it is there when this returns."""
        if self.writes:
            _append(self.metrics_path, line)

    def trace(self, step: int, digest: int) -> None:
        """Adds what this process has read for step number `step`, counted from 0."""
        _append(self.trace_path, {"step": step + 1, "digest": f"{digest:016x}"})


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


def _check_same(old: Config, new: Config, path: Path, fixed: Callable[[str], bool]) -> None:
    """A folder keeps the values of some fields."""
    for name, before, now in differences(dataclasses.asdict(old), dataclasses.asdict(new)):
        if fixed(name):
            raise RefusedError(
                f"{path} holds a run with {name}={before}, this config says {now}; choose another --workdir"
            )


def differences(old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The fields of two configs that differ, with both values."""
    after = dict(_leaves(new))
    for name, value in _leaves(old):
        if after.get(name) != value:
            yield name, value, after.get(name)


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of lines; one cut off by a crash ends the list."""
    try:
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    except (ValueError, OSError) as error:  # neither JSON nor even text
        raise RefusedError(f"{path} is corrupt: {error}") from error


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(to_json(line) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Replaces a file at once: a reader or a crash sees the old text or the new, of one of its writers."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
