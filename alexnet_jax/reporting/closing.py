"""The closing words of a run: its results against what was expected, and next commands."""

import math
import shlex
from pathlib import Path
from typing import Any

from tqdm import tqdm

from alexnet_jax.cli import shorter
from alexnet_jax.config.fields import Config, ExpectedConfig
from alexnet_jax.reporting.report import metrics_words
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.text import columns

HEADINGS = ("result", "step", "top-1 error", "top-5 error", "loss", "views")
UNKNOWN = "-"


def closing(config: Config, workdir: Workdir, metrics: dict[str, float], seconds: float, recipe: str) -> str:
    """The last lines of a run; `recipe` is what --config was given."""
    done = f"done   validation {metrics_words(metrics)}  in {tqdm.format_interval(seconds)}"
    return "\n".join(
        [
            done,
            results(config.expected, config.evaluation.views, workdir.metrics()),
            next_commands(config, workdir.path, recipe),
        ]
    )


def results(expected: ExpectedConfig, views: int, lines: list[dict[str, Any]]) -> str:
    """A table: the end of a run, its best validation if that was another, and the config's expectation."""
    validations = [line for line in lines if line["split"] == "validation" and line["top1_error"] is not None]
    rows = [HEADINGS]
    end = max(validations, key=lambda line: line["step"], default=None)
    best = min(validations, key=lambda line: (line["top1_error"], line["step"]), default=None)
    if end:
        rows.append(_row("this run", end, views))
    if best and best["top1_error"] < end["top1_error"]:
        rows.append(_row("its best", best, views))
    if expected.views:
        rows.append(
            ("expected", UNKNOWN, _percent(expected.top1_error), UNKNOWN, UNKNOWN, f"{expected.views}")
        )
    text = "\n".join(columns(rows, right=range(1, len(HEADINGS))))
    if not expected.views:
        return f"{text}\nexpected  not known for this config"
    return f"{text}\n{_verdict(expected, views, end)}" if end else text


def _row(name: str, line: dict[str, Any], views: int) -> tuple[str, ...]:
    errors = (_percent(line[f"top{k}_error"]) for k in (1, 5))
    loss = UNKNOWN if line["loss"] is None else f"{line['loss']:.4f}"
    return (name, f"{line['step']}", *errors, loss, f"{views}")


def _percent(error: float | None) -> str:
    return UNKNOWN if error is None or not math.isfinite(error) else f"{100 * error:.1f} %"


def _verdict(expected: ExpectedConfig, views: int, end: dict[str, Any]) -> str:
    """The distance from what was expected, if both are of as many views."""
    if expected.views != views:
        return f"compare   with --views={expected.views}, as below"
    points = 100 * (end["top1_error"] - expected.top1_error)
    if abs(points) < 0.05:
        return "compare   top-1 error as expected"
    side = "above" if points > 0 else "below"
    return f"compare   top-1 error {abs(points):.1f} points {side} what was expected"


def next_commands(config: Config, workdir: Path, recipe: str) -> str:
    """Commands that make sense after a run."""
    where = f"--workdir={shlex.quote(shorter(workdir))}"
    own, expected = config.evaluation.views, config.expected.views
    views = 10 if expected in (0, own) and own != 10 else expected or 1
    over = f"{views} views" if views > 1 else "the centre alone"
    commands = [
        (f"evaluate {where} --views={views}", f"its errors over {over}"),
        (f"evaluate {where}", "its errors once more, as they were validated"),
        (f"figures {where}", "the paper's pictures"),
        (f"predict {where} PICTURE", "the likeliest classes of a picture"),
    ]
    if recipe:
        commands.append(
            (f"plan --config={shlex.quote(recipe)} --topology=h100:1x2", "what it would cost elsewhere")
        )
    width = max(len(words) for words, _ in commands)
    lines = [f"python -m alexnet_jax.{words:<{width}}  # {why}" for words, why in commands]
    return "next   " + "\n       ".join(lines)
