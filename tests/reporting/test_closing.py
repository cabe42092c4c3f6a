"""The closing words of a run."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import pytest

from alexnet_jax.config.fields import Config, ExpectedConfig
from alexnet_jax.reporting.closing import next_commands, results


def expecting(config: Config, top1_error: float, views: int) -> Config:
    return dataclasses.replace(config, expected=ExpectedConfig(top1_error, views))


def line(step: int, top1: float | None, split: str = "validation") -> dict[str, Any]:
    return {
        "step": step,
        "split": split,
        "loss": 0.5,
        "top1_error": top1,
        "top5_error": 0.25 if top1 else None,
    }


END = "this run     9       40.0 %       25.0 %  0.5000      1"
HEADINGS = "result    step  top-1 error  top-5 error    loss  views"


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ((0.0, 0), ["expected  not known for this config"]),
        (
            (0.407, 10),
            [
                "expected     -       40.7 %            -       -     10",
                "compare   with --views=10, as below",
            ],
        ),
        (
            (0.381, 1),
            [
                "expected     -       38.1 %            -       -      1",
                "compare   top-1 error 1.9 points above what was expected",
            ],
        ),
        (
            (0.5, 1),
            [
                "expected     -       50.0 %            -       -      1",
                "compare   top-1 error 10.0 points below what was expected",
            ],
        ),
        (
            (0.4002, 1),
            [
                "expected     -       40.0 %            -       -      1",
                "compare   top-1 error as expected",
            ],
        ),
    ],
)
def test_against_what_is_expected(expected: tuple[float, int], words: list[str]) -> None:
    logged = [line(9, 0.9, "train"), line(9, 0.4), line(9, 0.4, "final")]
    assert results(ExpectedConfig(*expected), 1, logged).splitlines() == [HEADINGS, END, *words]


def test_the_best_where_it_is_not_the_end() -> None:
    """The first of several that are as good; what was no number is none of them."""
    logged = [line(2, None), line(3, 0.35), line(5, 0.35), line(9, 0.4)]
    assert results(ExpectedConfig(0.0, 0), 1, logged).splitlines()[1:3] == [
        END,
        "its best     3       35.0 %       25.0 %  0.5000      1",
    ]


def test_a_log_that_is_lost() -> None:
    found = results(ExpectedConfig(0.407, 10), 1, [])
    assert found.splitlines() == [
        "result    step  top-1 error  top-5 error  loss  views",
        "expected     -       40.7 %            -     -     10",
    ]


def test_what_to_do_next(narrow: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands as a shell takes them, spaces and all, from where the user is."""
    monkeypatch.chdir(tmp_path)
    text = next_commands(expecting(narrow, 0.13, 9), tmp_path / "my run", "configs/imagenet.py:source")
    assert text.startswith("next   python -m alexnet_jax.evaluate ")
    words = [shlex.split(line.removeprefix("next"), comments=True)[2:] for line in text.splitlines()]
    where = "--workdir=my run"
    assert words == [
        ["alexnet_jax.evaluate", where, "--views=9"],
        ["alexnet_jax.evaluate", where],
        ["alexnet_jax.figures", where],
        ["alexnet_jax.predict", where, "PICTURE"],
        ["alexnet_jax.plan", "--config=configs/imagenet.py:source", "--topology=h100:1x2"],
    ]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    text = next_commands(expecting(narrow, 0.0, 0), tmp_path / "my run", "")
    assert f"evaluate --workdir='{tmp_path}/my run' --views=10 " in text
    assert "alexnet_jax.plan" not in text
