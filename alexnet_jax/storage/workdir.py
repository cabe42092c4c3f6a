"""The folder of a run: its config, the log of its metrics, and where its checkpoints are."""

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

from alexnet_jax.config.building import build
from alexnet_jax.config.changes import Change, changes
from alexnet_jax.config.fields import Config
from alexnet_jax.config.rules import FIXED, FREE
from alexnet_jax.errors import ConfigError, RefusedError
from alexnet_jax.storage.files import Record, append_lines, read_lines, replace_text, to_json

# What lines of `metrics.jsonl` and of `trace.jsonl` must have.
METRICS = {"step": int, "split": str}
METRICS |= dict.fromkeys(("loss", "top1_error", "top5_error"), float | int | None)
TRACE = {"step": int, "digest": str}


class Workdir:
    """The paths of a run; where that is several processes, the first of them writes."""

    def __init__(self, path: str, process: int = 0):
        self.writes = process == 0
        self._unwritten: list[Record] = []  # of metrics, while the disk has no room
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
        """Makes the folder; refuses one that cannot be written, or whose metrics cannot be read."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path) as file:
                file.write(bytes(4096))
        except OSError as error:
            raise RefusedError(f"cannot write to --workdir={self.path}: {error.strerror}") from error
        self.metrics()

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

    def write_config(self, config: Config) -> None:
        if self.writes:
            replace_text(self.config_path, json.dumps(dataclasses.asdict(config), indent=2) + "\n")

    def changes(self, config: Config) -> list[Change]:
        """The changes of a config against the run's; a run that has saved nothing may begin with any."""
        if not (self.begun and self.config_path.exists()):
            return []
        return changes(self.read_config(), config)

    def check_same(self, config: Config) -> None:
        """Refuses a folder that holds another run."""
        others = [change for change in self.changes(config) if change.has(FIXED)]
        self._refuse(others, "choose another --workdir, or say --allow_config_change")

    def check_metrics(self, config: Config) -> None:
        """Refuses a folder whose metrics were measured in another way."""
        before = self.read_config() if self.config_path.exists() else config
        others = [change for change in changes(before, config) if not change.has(FREE)]
        self._refuse(others, "choose another --workdir")

    def _refuse(self, others: list[Change], way_out: str) -> None:
        for change in others:
            raise RefusedError(
                f"{self.path} holds a run with {change.name}={change.before}, this config says {change.now}; "
                f"{way_out}"
            )

    def metrics(self) -> list[Record]:
        """The lines of `metrics.jsonl`, written or not; none in processes that do not write them."""
        return read_lines(self.metrics_path, METRICS) + self._unwritten if self.writes else []

    def final(self) -> Record | None:
        """The closing line of a finished run."""
        lines = self.metrics()
        return lines[-1] if lines and lines[-1]["split"] == "final" else None

    def append(self, line: Record) -> None:
        """Adds a line to `metrics.jsonl`: at once if there is room, else when `write_out` finds some."""
        if self.writes:
            self._unwritten.append(line)
            self.write_out()

    def write_out(self) -> str:
        """Brings all lines into `metrics.jsonl`, or says why not."""
        try:
            append_lines(self.metrics_path, self._unwritten)
            self._unwritten.clear()
        except RefusedError as error:
            return str(error)
        return ""

    def forget_after(self, step: int, validated: int) -> None:
        """Drops lines that a resumed run will write again; its last validation was at `validated`."""
        ends = {"final": -1, "validation": validated}
        logs = {self.metrics_path: METRICS} if self.writes else {}
        for path, kinds in (logs | {self.trace_path: TRACE}).items():
            kept = [x for x in read_lines(path, kinds) if x["step"] <= ends.get(x.get("split"), step)]
            if path.exists():
                replace_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        if self.writes:
            self.divergence_path.unlink(missing_ok=True)

    def write_divergence(self, found: dict[str, Any]) -> str:
        """Records a step that could not be taken; where, or why nowhere."""
        try:
            if self.writes:
                replace_text(self.divergence_path, to_json(found) + "\n")
        except RefusedError as error:
            return str(error)
        return f"its pictures in {self.divergence_path}"

    def trace(self, step: int, digest: int) -> None:
        """Records what this process has read for step number `step`, counted from 0."""
        append_lines(self.trace_path, [{"step": step + 1, "digest": f"{digest:016x}"}])
