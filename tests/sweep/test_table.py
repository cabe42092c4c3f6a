"""The table of a sweep against figures made by hand."""

import itertools
import re

import pytest

from alexnet_jax.sweep.table import Outcome, compare, markdown, notes, terminal_table, verdict
from configs.variants import VARIANTS, difference

PAPER = {
    "paper": "",
    "no_lrn": "+1.37 / +1.15",
    "half": "+1.7 / +1.2",
    "tanh": "6 x slower",
    "six_convs": "-1.67 / -1.59",
    "sigmoid": "",
    "source": "",
    "dexp": "",
}
ERRORS = {
    "paper": (0.069, 0.060, 0.066),  # mean 0.065
    "no_lrn": (0.070, 0.080, 0.075),  # mean 0.075, all above
    "half": (0.059, 0.051, 0.055),  # mean 0.055, all below
    "tanh": (0.100, 0.200, 0.150),
    "six_convs": (0.061, 0.040, 0.052),  # mean 0.051, one among them
    "sigmoid": (0.9, None, 0.9),
    "source": (None, None, None),
}


def outcomes() -> list[Outcome]:
    return [
        Outcome(variant, seed, 0 if error is None else 2250, error, error and error / 10)
        for variant, errors in ERRORS.items()
        for seed, error in enumerate(errors)
    ]


def test_figures() -> None:
    rows = {row.variant: row for row in compare(outcomes(), PAPER, 3)}
    assert list(rows) == list(PAPER)
    assert rows["no_lrn"].mean == pytest.approx(0.075)
    assert rows["no_lrn"].difference == pytest.approx(0.01)
    assert rows["half"].difference == pytest.approx(-0.01)
    assert rows["six_convs"].difference == pytest.approx(-0.014)
    assert (rows["paper"].difference, rows["source"].mean, rows["dexp"].mean) == (None, None, None)
    assert (rows["sigmoid"].seeds, rows["sigmoid"].diverged) == ((0, 2), (1,))
    assert rows["half"].top5_errors == pytest.approx((0.0059, 0.0051, 0.0055))
    assert [row.here for row in rows.values()] == [
        "",
        "as in the paper",
        "the other way",
        "higher",
        "within the spread",
        "higher",
        "",
        "",
    ]


def test_words() -> None:
    """On a terminal and in Markdown."""
    rows = compare([*outcomes(), Outcome("dexp", 0, 1000, 0.0704, 0.0)], PAPER, 3)
    cells = {line.split()[0]: re.split(r" {2,}", line)[1:] for line in terminal_table(rows).splitlines()}
    assert cells["paper"] == ["3", "2250", "6.50 (6.00 to 6.90)"]
    assert cells["half"] == ["3", "2250", "5.50 (5.10 to 5.90)", "-1.00", "+1.7 / +1.2", "the other way"]
    assert cells["sigmoid"] == ["2 of 3, 1 diverged", "2250", "90.00 (90.00 to 90.00)", "+83.50", "higher"]
    assert cells["source"] == ["0 of 3, 3 diverged"]
    assert cells["dexp"] == ["1 of 3", "1000", "7.04", "+0.54", "one seed says little"]
    assert markdown(rows).splitlines()[2:4] == [
        "| paper | 3 | 2250 | 6.50 (6.00 to 6.90) |  |  |  |",
        "| no_lrn | 3 | 2250 | 7.50 (7.00 to 8.00) | +1.00 | +1.37 / +1.15 | as in the paper |",
    ]


@pytest.mark.parametrize(("seeds", "chance"), [(2, 3), (3, 10), (4, 35)])
def test_what_chance_does(seeds: int, chance: int) -> None:
    """Counts the rankings of runs of two equal variants that look like a difference."""
    ranks = range(2 * seeds)
    found = [
        verdict([rank for rank in ranks if rank not in base], base, "")
        for base in itertools.combinations(ranks, seeds)
    ]
    beyond = [words for words in found if words != "within the spread"]
    assert set(beyond) == {"higher", "lower"} and len(found) == chance * len(beyond)
    rows = compare([], {"paper": ""}, seeds)
    assert f"1 in {chance} comes out so by chance, with {seeds} seeds each" in notes(rows)


def test_what_the_paper_says() -> None:
    """The paper speaks of one change, not of two together, nor of a change taken back."""
    lrn = VARIANTS["no_lrn"].difference
    assert difference("no_lrn", "paper") == difference("source,no_lrn", "source") == lrn == "+1.37 / +1.15"
    assert difference("paper,no_lrn", "paper") == lrn
    for names, base in (
        *(("source,no_lrn", "paper"), ("paper", "no_lrn"), ("half", "no_lrn"), ("paper", "paper")),
        *(("no_lrn,half", "source"), ("mine", "paper")),
    ):
        assert difference(names, base) == "", (names, base)
