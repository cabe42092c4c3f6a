"""Vectors of pictures, as they are computed and as they are written."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data.picture_files import read_files
from alexnet_jax.errors import CONFIG, PASSED_OVER, ConfigError, RefusedError
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.trained.features import make_features, write_files, write_split
from alexnet_jax.trained.opened import TrainedRun, load_run
from tests.commands.running import here


def test_stages(opened: TrainedRun) -> None:
    """Towers come one after the other; scores are those of the classes that there are."""
    pictures, labels = opened.packed.read("validation", np.arange(5))
    whole = {stage: make_features(opened, stage, 5)(pictures) for stage in ("pool5", "fc7", "fc8")}
    shapes = {"pool5": (5, 1, 1, 8), "fc7": (5, 32), "fc8": (5, 10)}
    assert {stage: x.shape for stage, x in whole.items()} == shapes
    log_probabilities, truth = opened.answers
    np.testing.assert_array_equal(truth[:5], labels)
    scores = whole["fc8"].astype(np.float64)
    expected = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(log_probabilities[:5], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="no stage 'fc9'; it has conv1, pool1"):
        make_features(opened, "fc9", 5)


def test_fewer_and_elsewhere(opened: TrainedRun) -> None:
    """Batches that are not full, on rows of devices that they do not divide over."""
    pictures, _ = opened.packed.read("validation", np.arange(7))
    whole = make_features(opened, "fc7", 7)(pictures)
    wide = make_features(load_run(opened.workdir, mesh=make_mesh(4, 2)), "fc7", 7)
    for found in (wide(pictures), np.concatenate([wide(pictures[:3]), wide(pictures[3:])])):
        np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-6)


def test_a_split(opened: TrainedRun, tmp_path: Path) -> None:
    """All 1000 pictures in batches of 200, in their order, with what they are."""
    path = tmp_path / "x.npz"
    assert write_split(opened, "fc7", "validation", path) == (1000, 32)
    pictures, labels = opened.packed.read("validation", np.arange(1000))
    with np.load(path) as found:
        assert found["features"].dtype == np.float32
        made = make_features(opened, "fc7", 1000)(pictures)
        np.testing.assert_allclose(found["features"], made, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(found["labels"], labels)
        assert found["class_names"].tolist() == opened.packed.class_names
    assert [file.name for file in tmp_path.iterdir()] == ["x.npz"]


@pytest.fixture(scope="module")
def folder(opened: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures of the validation split, and a text in between."""
    path = tmp_path_factory.mktemp("pictures")
    for i, picture in enumerate(opened.packed.read("validation", np.arange(5))[0]):
        Image.fromarray(picture).save(path / f"{i}.png")
    (path / "2a.png").write_text("no picture")
    return path


def test_files(opened: TrainedRun, folder: Path, tmp_path: Path) -> None:
    """In batches of two, in the order of their names; what cannot be read is told, and has no row."""
    paths = sorted(folder.iterdir())
    with read_files(paths, opened.config.data.size, 2) as batches:
        shape, bad = write_files(opened, "fc7", batches, len(paths), tmp_path / "x.npz")
    assert shape == (5, 32) and [path.name for path, _ in bad] == ["2a.png"]
    pictures, _ = opened.packed.read("validation", np.arange(5))
    with np.load(tmp_path / "x.npz") as found:
        made = make_features(opened, "fc7", 5)(pictures)
        np.testing.assert_allclose(found["features"], made, rtol=1e-4, atol=1e-6)
        assert found["pictures"].tolist() == [str(folder / f"{i}.png") for i in range(5)]


def test_nowhere_to_write(opened: TrainedRun, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"cannot write .*/none/x.npz: No such file or directory"):
        write_split(opened, "fc7", "validation", tmp_path / "none" / "x.npz")


def test_the_command(workdir: Workdir, folder: Path, data_dir: Path, tmp_path: Path) -> None:
    """Features of a folder, with a file that is passed over; and of a split."""
    flags = (f"--workdir={workdir.path}", "--features=fc6", f"--output={tmp_path}/x.npz")
    out, err = here("predict", *flags, str(folder), data_dir=data_dir, code=PASSED_OVER)
    assert out == f"{tmp_path}/x.npz: features f32[5, 16] of fc6\n"
    assert err.startswith(f"passed over: {folder}/2a.png: ") and len(err.splitlines()) == 1
    out, _ = here("predict", *flags, "--split=train", data_dir=data_dir)
    assert out.endswith(f"{tmp_path}/x.npz: features f32[4000, 16] of fc6\n")


def test_refused(workdir: Workdir, data_dir: Path) -> None:
    for words, complaint in (
        (("--features=fc7", "x.png"), "--output is missing; try --output=fc7.npz"),
        (("--features=fc7", "--output=x.txt", "x.png"), "--output=x.txt must end in .npz"),
        (("--features=fc9", "--output=x.npz", "x.png"), "has no stage 'fc9'; it has conv1, pool1"),
        (("--output=x.npz", "x.png"), "--output=x.npz needs --features, as in --features=fc7"),
        (("--features=fc7", "--output=x.npz", "--split=test"), "there is no split 'test'; there is tr"),
        (("--features=fc7", "--output=x.npz", "--split=train", "x.png"), "name pictures or --split=train"),
        (("--features=fc7", "--output=x.npz", "--json", "x.png"), "--json and --views are of answers"),
    ):
        _, err = here("predict", f"--workdir={workdir.path}", *words, data_dir=data_dir, code=CONFIG)
        assert complaint in err and len(err.splitlines()) == 1, words
