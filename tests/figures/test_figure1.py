"""Figure 1: from an archive in CIFAR-10's format to the picture, and from made-up training errors."""

import itertools
import json
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from etils import epath
from matplotlib.figure import Figure

from alexnet_jax.config.building import build
from alexnet_jax.config.fields import Config
from alexnet_jax.data.batches import open_packed
from alexnet_jax.errors import RefusedError
from alexnet_jax.figures.figure1 import figure1
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.training.loop import train
from benchmarks.generated_cifar10 import picture, place_archive, write_archive
from configs import four_layers
from tests.commands.running import here

TRAIN, TEST, BATCH = 60, 20, 20
PNG = b"\x89PNG\r\n\x1a\n"


def recipe(activation: str, data_dir: Path, **changes: Any) -> Config:
    """Six steps of Figure 1's recipe."""
    values = four_layers.get_config(activation).to_dict()
    values["data"]["dir"] = str(data_dir)
    values["train"] |= {"batch_size": BATCH, "steps": 6, "log_every": 2} | changes
    values["evaluation"]["batch_size"] = TEST
    return build(values)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder: the genuine builder has read generated pictures, the command has packed them."""
    path = tmp_path_factory.mktemp("cifar10")
    place_archive(path / "tfds", TRAIN, TEST)
    flags = ("--dataset=cifar10", "--size=32", "--processes=1", f"--tfds_dir={path / 'tfds'}")
    out, _ = here("prepare", *flags, data_dir=path)
    assert f"cifar10: {TRAIN} train, {TEST} validation pictures, 10 classes; digest" in out
    return path


def test_the_archive(tmp_path: Path) -> None:
    """Six files of rows, each a label and 3 x 32 x 32 bytes."""
    write_archive(epath.Path(tmp_path / "archive.tar.gz"), TRAIN, TEST)
    with tarfile.open(tmp_path / "archive.tar.gz") as tar:
        sizes = {member.name.rpartition("/")[2]: member.size for member in tar}
        row = tar.extractfile("cifar-10-batches-bin/data_batch_2.bin").read(3073)
    names = sizes.pop("batches.meta.txt")
    assert names > 10
    each = {f"data_batch_{i}.bin": TRAIN // 5 * 3073 for i in range(1, 6)}
    assert sizes == each | {"test_batch.bin": TEST * 3073}
    assert row[0] == 12 % 10  # the first picture of the second batch
    np.testing.assert_array_equal(
        np.frombuffer(row[1:1025], np.uint8).reshape(32, 32), picture("train", 12)[..., 0]
    )


def test_what_is_packed_is_what_was_drawn(home: Path) -> None:
    packed = open_packed(recipe("relu", home).data, 10)
    for split, count in (("train", TRAIN), ("validation", TEST)):
        images, labels = packed.table(split)(np.arange(count))
        found = sorted((image.tobytes(), label) for image, label in zip(images, labels.tolist(), strict=True))
        assert found == sorted((picture(split, i).tobytes(), i % 10) for i in range(count))
    assert "crescent" in packed.class_names


@pytest.mark.slow
@pytest.mark.usefixtures("half_optimised")
def test_from_the_archive_to_the_figure(home: Path) -> None:
    """Both nets learn from it, and the command draws them; what is not reached is said."""
    for activation in ("relu", "tanh"):
        config = recipe(activation, home)
        train(config, Workdir(str(home / activation)), open_packed(config.data, 10), make_mesh(1, 1))
    flags = (f"--relu={home / 'relu'}", f"--tanh={home / 'tanh'}")
    out, err = here("figures", *flags, "figure1", data_dir=home)
    relu, tanh, verdict, last = out.splitlines()
    assert relu.startswith("ReLU   25 % training error not reached in 6 steps (2.0 epochs), the least is ")
    assert tanh.startswith("tanh   25 % training error not reached in 6 steps (2.0 epochs), the least is ")
    assert verdict.startswith("Neither has come to 25 % training error in 6 steps") and not err
    picture = home / "relu" / "figures" / "figure1.png"
    assert json.loads(last) == {
        "figure": str(picture),
        "relu_steps": None,
        "tanh_steps": None,
        "ratio": None,
        "paper_ratio": 6.0,
    }
    assert picture.read_bytes().startswith(PNG)


def made_up(path: Path, activation: str, errors: Sequence[float], **changes: Any) -> Workdir:
    """A run that reported training errors every ten steps, and lower ones of validation."""
    workdir = Workdir(str(path))
    path.mkdir()
    workdir.write_config(recipe(activation, path / "no data", **changes))
    for i, error in enumerate(errors, 1):
        workdir.append(
            {"step": 10 * i, "split": "train", "loss": 1.0, "top1_error": error, "top5_error": 0.0}
        )
        workdir.append(
            {"step": 10 * i, "split": "validation", "loss": 1.0, "top1_error": 0.0, "top5_error": 0.0}
        )
    return workdir


RELU = (0.8, 0.5, 0.251, 0.25, 0.3, 0.1)
TANH = (0.9, *np.linspace(0.8, 0.3, 18), 0.24, 0.26, 0.2)


def drawn(monkeypatch: pytest.MonkeyPatch, relu: Workdir, tanh: Workdir) -> tuple[dict, Figure]:
    """Its numbers, and the figure before it is written."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    return figure1(relu, tanh, relu.path / "figure.png"), figures[0]


def test_the_steps_to_a_quarter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first report at or below 25 %: 40 and 200 steps. ReLU is solid and tanh dashed, both are marked."""
    runs = made_up(tmp_path / "relu", "relu", RELU), made_up(tmp_path / "tanh", "tanh", TANH)
    found, figure = drawn(monkeypatch, *runs)
    assert (found["relu_steps"], found["tanh_steps"], found["ratio"]) == (40, 200, 5.0)
    out = capsys.readouterr().out
    assert "ReLU   25 % training error after 40 steps; rate" in out
    verdict = "To 25 % training error tanh takes 5.0 times as many steps as ReLU (the paper: 6 times)"
    assert verdict in out.splitlines()
    [axes] = figure.axes
    assert axes.get_xlabel() == "Steps"  # its data are not here, so that nobody knows what an epoch is
    curves = {line.get_linestyle(): line.get_xydata() for line in axes.lines if len(line.get_xydata()) > 2}
    np.testing.assert_allclose(curves["-"], [(10 * i, 100 * e) for i, e in enumerate(RELU, 1)])
    np.testing.assert_allclose(curves["--"], [(10 * i, 100 * e) for i, e in enumerate(TANH, 1)])
    dots = [tuple(line.get_xydata()[0]) for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(dots, [(40, 25), (200, 24)])
    assert {text.get_text().split("\n")[0] for text in axes.texts} >= {
        "ReLU",
        "tanh",
        "40 steps",
        "200 steps",
    }
    assert axes.get_title("left") == verdict


def test_all_of_it_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No words beyond the edges or on each other; no point outside the axes."""
    for number, (relu, tanh) in enumerate(
        (
            (RELU, TANH),
            (RELU, TANH[:12]),  # which never gets there, and has the longest title
            (RELU, RELU[:5]),  # both at the same step
            ((*RELU, 0.05), (0.9, 0.7, 0.5, 0.24)),
            (RELU, (0.9, 0.8)),
            (TANH[:12], TANH[1:13]),  # neither gets there, and both end close to each other
            (TANH[1:13], TANH[:12]),
        )
    ):
        runs = made_up(tmp_path / f"{number}", "relu", relu), made_up(tmp_path / f"{number}t", "tanh", tanh)
        figure = drawn(monkeypatch, *runs)[1]
        check_readable(figure)
        for line in figure.axes[0].lines[:2]:
            x, y = line.get_xydata().T
            assert x.min() >= 0 and x.max() <= figure.axes[0].get_xlim()[1]
            assert y.min() >= 0 and y.max() <= figure.axes[0].get_ylim()[1]


def check_readable(figure: Figure) -> None:
    figure.draw_without_rendering()
    [axes] = figure.axes
    boxes = [text.get_window_extent() for text in (*axes.texts, axes._left_title)]
    width, height = figure.canvas.get_width_height()
    assert all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= width and b.y1 <= height for b in boxes)
    # Lines of one name may touch, as their boxes have room for tails.
    assert not any(a.shrunk(0.9, 0.7).overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_epochs_where_the_data_are(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = made_up(tmp_path / "relu", "relu", RELU), made_up(tmp_path / "tanh", "tanh", TANH)
    runs[0].write_config(recipe("relu", home))
    [axes] = drawn(monkeypatch, *runs)[1].axes
    assert axes.get_xlabel() == "Epochs"
    assert axes.lines[0].get_xydata()[-1].tolist() == [60 * BATCH / TRAIN, 10]


def test_tanh_that_never_gets_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = made_up(tmp_path / "relu", "relu", RELU), made_up(tmp_path / "tanh", "tanh", TANH[:12])
    short = made_up(tmp_path / "short", "tanh", TANH[:2])
    figure1(runs[0], short, tmp_path / "figure.png")
    words = (
        "ReLU comes to 25 % training error after 40 steps, and tanh has made only 20: there is no ratio yet"
    )
    assert words in capsys.readouterr().out
    found, _ = drawn(monkeypatch, *runs)
    assert (found["tanh_steps"], found["ratio"]) == (None, None)
    out = capsys.readouterr().out
    assert "tanh   25 % training error not reached in 120 steps, the least is 50.6 %" in out
    assert "tanh has not come to 25 % training error in 3.0 times as many steps as ReLU (the paper: 6" in out


def test_runs_that_make_no_figure(tmp_path: Path) -> None:
    relu, tanh = made_up(tmp_path / "relu", "relu", RELU), made_up(tmp_path / "tanh", "tanh", TANH)
    empty = made_up(tmp_path / "empty", "tanh", ())
    batch = made_up(tmp_path / "batch", "tanh", TANH, batch_size=30)
    rarely = made_up(tmp_path / "rarely", "tanh", TANH, log_every=500)
    for theirs, words in (
        (Workdir(str(tmp_path / "nowhere")), f"{tmp_path / 'nowhere'} holds no run: there is no config.json"),
        (empty, f"{empty.path} has no metrics of training: its run has not come to train.log_every=2 steps"),
        (relu, f"{relu.path} holds a run with network.activation=relu, not tanh"),
        (
            batch,
            f"has train.batch_size=20 and {batch.path} train.batch_size=30: their steps cannot be compared",
        ),
        (rarely, f"has train.log_every=2 and {rarely.path} train.log_every=500: their steps"),
    ):
        with pytest.raises(RefusedError, match=words):
            figure1(relu, theirs, tmp_path / "figure.png")
    values = json.loads(tanh.config_path.read_text())
    for section, field, old, new in (
        ("data", "name", "cifar10", "cifar100"),
        ("data", "size", 32, 40),
        ("network", "dropout", 0.0, 0.5),
        ("augment", "flip", False, True),
    ):
        tanh.config_path.write_text(json.dumps(values | {section: values[section] | {field: new}}))
        words = rf"has {section}\.{field}={old} and .* {section}\.{field}={new}: their steps"
        with pytest.raises(RefusedError, match=words):
            figure1(relu, tanh, tmp_path / "figure.png")
    assert not (tmp_path / "figure.png").exists()


def test_other_pictures_of_the_same_name(home: Path, tmp_path: Path) -> None:
    runs = made_up(tmp_path / "relu", "relu", RELU), made_up(tmp_path / "tanh", "tanh", TANH)
    shutil.copytree(home / "packed", tmp_path / "packed")
    marker = tmp_path / "packed" / "cifar10-32-raw" / "packed.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"digest": "another"}))
    for workdir, activation, data_dir in zip(runs, ("relu", "tanh"), (home, tmp_path), strict=True):
        workdir.write_config(recipe(activation, data_dir))
    with pytest.raises(RefusedError, match="have learnt from different pictures, both called cifar10"):
        figure1(*runs, tmp_path / "figure.png")


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    runs = made_up(tmp_path / "relu", "relu", RELU), made_up(tmp_path / "tanh", "tanh", TANH)
    (tmp_path / "file").write_text("")
    with pytest.raises(RefusedError, match=f"cannot write {tmp_path / 'file' / 'figure.png'}: "):
        figure1(*runs, tmp_path / "file" / "figure.png")
