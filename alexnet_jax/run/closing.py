"""What a run says when it has ended: its results against what was expected, and what may be done next."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from alexnet_jax.config import Config
from alexnet_jax.run.processes import shorter
from alexnet_jax.run.report import describe
from alexnet_jax.run.workdir import Workdir

HEADINGS = ("result", "step", "top-1 error", "top-5 error", "loss", "views")
UNKNOWN = "-"


def closing(
    config: Config, workdir: Workdir, figures: dict[str, float], seconds: float, recipe: str = ""
) -> str:
    """The last lines of a run; `recipe` is what --config was given."""
    done = f"done   validation {describe(figures)}  in {tqdm.format_interval(seconds)}"
    return "\n".join([done, results(config, workdir.metrics()), next_commands(config, workdir.path, recipe)])


def results(config: Config, lines: list[dict[str, Any]]) -> str:
    """A table: the end of a run, its best validation if that was another, and the config's expectation."""
    validations = [line for line in lines if line["split"] == "validation" and line["top1_error"] is not None]
    rows, views = [HEADINGS], config.evaluation.views
    end = max(validations, key=lambda line: line["step"], default=None)
    best = min(validations, key=lambda line: (line["top1_error"], line["step"]), default=None)
    if end:
        rows.append(_row("this run", end, views))
    if best and best["top1_error"] < end["top1_error"]:
        rows.append(_row("its best", best, views))
    if config.expected.views:
        expected = config.expected
        rows.append(
            ("expected", UNKNOWN, _percent(expected.top1_error), UNKNOWN, UNKNOWN, f"{expected.views}")
        )
    text = aligned(rows)
    if not config.expected.views:
        return f"{text}\nexpected  not known for this config"
    return f"{text}\n{_verdict(config, end)}" if end else text


def _row(name: str, line: dict[str, Any], views: int) -> tuple[str, ...]:
    errors = (_percent(line[f"top{k}_error"]) for k in (1, 5))
    loss = UNKNOWN if line["loss"] is None else f"{line['loss']:.4f}"
    return (name, f"{line['step']}", *errors, loss, f"{views}")


def _percent(error: float | None) -> str:
    return UNKNOWN if error is None or not math.isfinite(error) else f"{100 * error:.1f} %"


def aligned(rows: Sequence[tuple[str, ...]], left: Sequence[int] = (0,)) -> str:
    """Columns of words to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = enumerate(zip(row, widths, strict=True))
        lines.append("  ".join(x.ljust(n) if i in left else x.rjust(n) for i, (x, n) in cells).rstrip())
    return "\n".join(lines)


def _verdict(config: Config, end: dict[str, Any]) -> str:
    """How far it is from what was expected, where both are of as many views."""
    expected = config.expected
    if expected.views != config.evaluation.views:
        return f"compare   with --views={expected.views}, as below"
    points = 100 * (end["top1_error"] - expected.top1_error)
    if abs(points) < 0.05:
        return "compare   top-1 error as expected"
    side = "above" if points > 0 else "below"
    return f"compare   top-1 error {abs(points):.1f} points {side} what was expected"


def next_commands(config: Config, workdir: Path, recipe: str = "") -> str:
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
