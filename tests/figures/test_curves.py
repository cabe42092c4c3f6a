"""Curves: what is drawn is what metrics.jsonl says, and rates fall where they fell."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from alexnet_jax.config.fields import Config
from alexnet_jax.errors import RefusedError
from alexnet_jax.figures.curves import curves
from alexnet_jax.learning.schedule import learning_rate
from alexnet_jax.trained.opened import TrainedRun
from tests.figures.untrained import stateless

EPOCH = 5  # steps, of batches of 8 out of 40 pictures
EPOCHS = 12
SETTINGS = {
    "drops": {"kind": "drops", "drops": (5.0, 9.0)},
    "plateau": {"kind": "plateau", "patience": 2, "max_drops": 2},
    "dexp": {"kind": "dexp", "factor": 250.0, "levels": 4},
    "polynomial": {"kind": "polynomial", "power": 2.0},
    "warmup": {"kind": "drops", "drops": (9.0,), "warmup_epochs": 3.0},
}


def changed(config: Config, home: Path, classes: int = 10, **schedule: Any) -> Config:
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, name="toyshapes", dir=str(home)),
        network=dataclasses.replace(config.network, classes=classes),
        schedule=dataclasses.replace(config.schedule, **schedule),
    )


def made_up(config: Config, path: Path, every: int = 3) -> TrainedRun:
    """A run of twelve epochs of five steps that reports every third, and validates every second epoch."""
    opened, errors = stateless(config, path), []
    for step in range(1, EPOCHS * EPOCH + 1):
        rate = learning_rate(config.schedule, (step - 1) / EPOCH, EPOCHS, errors)
        if step % every == 0:
            own = {"loss": 5 / step, "top1_error": 0.9 - step / 100, "top5_error": 0.5 - step / 200}
            opened.workdir.append({"step": step, "split": "train", **own, "learning_rate": rate})
        if step % (2 * EPOCH) == 0:
            errors.append(0.5 if step > 20 else 0.9 - step / 100)
            own = {"loss": 4 / step, "top1_error": errors[-1], "top5_error": errors[-1] / 3}
            opened.workdir.append({"step": step, "split": "validation", **own})
    opened.workdir.append({"step": step, "split": "final", **own})
    return opened


def drawn(axes: Axes) -> dict[str, np.ndarray]:
    """The points of each curve that has a name."""
    return {line.get_label(): line.get_xydata() for line in axes.lines if line.get_label()[0] != "_"}


def marks(axes: Axes) -> tuple[list[float], list[str]]:
    """Upright lines, and words over the axes."""
    upright = [line.get_xdata()[0] for line in axes.lines if np.ptp(line.get_xdata()) == 0]
    return upright, [text.get_text() for text in axes.texts]


def test_every_line_is_drawn(narrow: Config, home: Path, tmp_path: Path) -> None:
    """Over epochs, and told apart without colour; the closing line is no point of its own."""
    opened = made_up(changed(narrow, home, **SETTINGS["drops"]), tmp_path)
    figure = curves(opened)
    above, below = figure.axes
    found = drawn(above) | {f"loss, {name}": points for name, points in drawn(below).items()}
    for split in ("train", "validation"):
        lines = [line for line in opened.workdir.metrics() if line["split"] == split]
        for name, figure_of, scale in (
            ("top-1", "top1_error", 100),
            ("top-5", "top5_error", 100),
            ("loss", "loss", 1),
        ):
            wanted = [(line["step"] / EPOCH, scale * line[figure_of]) for line in lines]
            np.testing.assert_allclose(found.pop(f"{name}, {split}"), wanted)
    assert not found
    looks = {(line.get_linestyle(), line.get_marker()) for line in above.lines if line.get_label()[0] != "_"}
    assert len(looks) == 4
    assert below.get_xlabel() == "epochs" and not above.get_xlabel()
    figure.draw_without_rendering()
    assert all(tick == round(tick) for tick in below.get_xticks())
    last = "Validation error after 12 epochs: top-1 50.0 %, top-5 16.7 %; loss 0.067"
    assert figure.get_suptitle() == last


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        # Reports at steps 24 and 27 tell that it fell; the schedule says that this was at epoch 5.
        ("drops", {5.0: "0.001", 9.0: "0.0001"}),
        # The best is that of epoch 6 (step 30); two more, at 8 and 10, are no better.
        ("plateau", {10.0: "0.001"}),
    ],
)
def test_drops_are_marked(
    kind: str, wanted: dict[float, str], narrow: Config, home: Path, tmp_path: Path
) -> None:
    opened = made_up(changed(narrow, home, **SETTINGS[kind]), tmp_path)
    for number, axes in enumerate(curves(opened).axes):
        places, words = marks(axes)
        np.testing.assert_allclose(places, list(wanted))
        assert words == ([] if number else ["rate 0.01", *wanted.values()])


def test_a_rate_that_was_lowered_by_hand(narrow: Config, home: Path, tmp_path: Path) -> None:
    """The schedule says nothing of it: it is marked at the first report, and at no older drop."""
    opened = stateless(changed(narrow, home, kind="drops", drops=(1.0,)), tmp_path)
    for step, rate in ((3, 0.01), (6, 0.001), (9, 0.001), (12, 0.0002)):
        figures = {"loss": 1.0, "top1_error": 0.5, "top5_error": 0.1, "learning_rate": rate}
        opened.workdir.append({"step": step, "split": "train", **figures})
    places, words = marks(curves(opened).axes[0])
    np.testing.assert_allclose(places, [1.0, 12 / EPOCH])
    assert words == ["rate 0.01", "0.001", "0.0002"]


@pytest.mark.parametrize("kind", ["dexp", "polynomial", "warmup"])
def test_smooth_rates_are_a_curve(kind: str, narrow: Config, home: Path, tmp_path: Path) -> None:
    opened = made_up(changed(narrow, home, **SETTINGS[kind]), tmp_path)
    above, below, rates = curves(opened).axes
    assert marks(above) == marks(below) == ([], [])
    lines = [line for line in opened.workdir.metrics() if line["split"] == "train"]
    wanted = [(line["step"] / EPOCH, line["learning_rate"]) for line in lines]
    np.testing.assert_allclose(rates.lines[0].get_xydata(), wanted)
    assert rates.get_xlabel() == "epochs"


def test_no_top5_among_five(narrow: Config, home: Path, tmp_path: Path) -> None:
    """It is zero by itself."""
    figure = curves(made_up(changed(narrow, home, 5, **SETTINGS["drops"]), tmp_path))
    assert set(drawn(figure.axes[0])) == {"top-1, train", "top-1, validation"}
    assert figure.get_suptitle() == "Validation error after 12 epochs: top-1 50.0 %; loss 0.067"


def test_a_run_that_has_only_begun(narrow: Config, tmp_path: Path) -> None:
    """One line of training, whose data are elsewhere, and which has found no loss; before it, nothing."""
    opened = stateless(changed(narrow, tmp_path / "nowhere"), tmp_path)
    with pytest.raises(RefusedError, match=r"no metrics yet: it has not come to train\.log_every=100 steps"):
        curves(opened)
    line = {"step": 100, "split": "train", "loss": None, "top1_error": 0.5, "top5_error": 0.25}
    opened.workdir.append(line)
    figure = curves(opened)
    above, below = figure.axes
    assert {name: points.tolist() for name, points in drawn(above).items()} == {
        "top-1, train": [[100, 50]],
        "top-5, train": [[100, 25]],
    }
    assert all(line.get_marker() not in ("", "None") for line in above.lines)  # a line of one point is none
    assert not drawn(below) and below.get_xlabel() == "steps"
    assert figure.get_suptitle().startswith("No validation yet; training error after 100 steps: top-1 50.0 %")


def test_words_do_not_meet(narrow: Config, home: Path, tmp_path: Path) -> None:
    """Drops that follow each other closely, at the end of the axis."""
    config = changed(narrow, home, kind="drops", drops=(11.0, 11.4, 11.7))
    figure = curves(made_up(config, tmp_path, every=1))
    figure.draw_without_rendering()
    above = figure.axes[0]
    boxes = [text.get_window_extent() for text in (*above.texts, figure._suptitle)]
    boxes.append(above.get_legend().get_window_extent())
    width, height = figure.canvas.get_width_height()
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height
        assert not any(box.shrunk(0.95, 0.8).overlaps(other) for other in boxes[i + 1 :])
