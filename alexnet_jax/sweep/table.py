"""The table of a sweep: every variant against the first, with the spread over seeds."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alexnet_jax.text import columns

HEADINGS = ("variant", "seeds", "steps", "top-1 error, %", "difference", "the paper's", "here")


@dataclass(frozen=True)
class Outcome:
    """The result of a run; without errors if it diverged."""

    variant: str
    seed: int
    step: int = 0
    top1_error: float | None = None
    top5_error: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A variant over its seeds; errors are fractions."""

    variant: str
    wanted: int  # seeds
    seeds: tuple[int, ...]  # with figures; the errors are in their order
    diverged: tuple[int, ...]
    steps: tuple[int, ...]  # that they have taken, each number once
    top1_errors: tuple[float, ...]
    top5_errors: tuple[float, ...]
    mean: float | None
    difference: float | None  # of the means, to the first variant
    paper: str  # the difference that the paper and its authors' logs give
    here: str


def compare(outcomes: Sequence[Outcome], variants: Mapping[str, str], seeds: int) -> list[Comparison]:
    """A row for each of the variants, which come with the paper's difference to the first of them."""
    first = next(iter(variants))
    base = _errors(outcomes, first)
    rows = []
    for variant, paper in variants.items():
        mine = [outcome for outcome in outcomes if outcome.variant == variant]
        ended = [outcome for outcome in mine if outcome.top1_error is not None]
        errors = _errors(outcomes, variant)
        row = Comparison(
            variant,
            seeds,
            tuple(outcome.seed for outcome in ended),
            tuple(outcome.seed for outcome in mine if outcome.top1_error is None),
            tuple(sorted({outcome.step for outcome in ended})),
            errors,
            tuple(outcome.top5_error for outcome in ended),
            _mean(errors),
            _mean(errors) - _mean(base) if errors and base and variant != first else None,
            paper,
            verdict(errors, base, paper) if variant != first else "",
        )
        rows.append(row)
    return rows


def verdict(errors: Sequence[float], base: Sequence[float], paper: str) -> str:
    """Whether all runs lie above or below all of the first variant, and whether the paper's did."""
    if not errors or not base:
        return ""
    if min(len(errors), len(base)) < 2:
        return "one seed says little"
    above, below = min(errors) > max(base), max(errors) < min(base)
    if not above and not below:
        return "within the spread"
    signed = re.search(r"([+-])\d", paper)
    if signed is None:
        return "higher" if above else "lower"
    return "as in the paper" if (signed[1] == "+") == above else "the other way"


def notes(rows: Sequence[Comparison]) -> str:
    """Explains the columns."""
    first, seeds = rows[0].variant, rows[0].wanted
    text = (
        "Top-1 error on the validation pictures: mean over seeds (lowest to highest). Differences of means "
        f"to {first}, in points. The paper's: of its nets on ImageNet, top-1 / top-5. Here: whether all runs "
        f"lie on one side of all of {first}, and whether that is the side of the paper's."
    )
    if seeds > 1:
        equal = math.comb(2 * seeds, seeds) // 2
        text += f" Of changes that do nothing, 1 in {equal} comes out so by chance, with {seeds} seeds each."
    return text


def terminal_table(rows: Sequence[Comparison]) -> str:
    """The table for a terminal."""
    return "\n".join(columns([HEADINGS, *map(_cells, rows)]))


def markdown(rows: Sequence[Comparison]) -> str:
    """The table for a README."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *map(_cells, rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def _cells(row: Comparison) -> tuple[str, ...]:
    seeds = f"{len(row.seeds)}" if len(row.seeds) == row.wanted else f"{len(row.seeds)} of {row.wanted}"
    if row.diverged:
        seeds += f", {len(row.diverged)} diverged"
    errors = ""
    if row.top1_errors:
        errors = f"{100 * row.mean:.2f}"
    if len(row.top1_errors) > 1:
        errors += f" ({100 * min(row.top1_errors):.2f} to {100 * max(row.top1_errors):.2f})"
    difference = f"{100 * row.difference:+.2f}" if row.difference is not None else ""
    steps = ", ".join(map(str, row.steps))
    return row.variant, seeds, steps, errors, difference, row.paper, row.here


def _errors(outcomes: Sequence[Outcome], variant: str) -> tuple[float, ...]:
    return tuple(o.top1_error for o in outcomes if o.variant == variant and o.top1_error is not None)


def _mean(errors: Sequence[float]) -> float | None:
    return sum(errors) / len(errors) if errors else None
