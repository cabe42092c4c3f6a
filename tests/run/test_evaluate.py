"""A checkpoint has the same error rates on any mesh and with any batch."""

import json
import os
import shutil
from pathlib import Path

import pytest

from alexnet_jax.errors import REFUSED
from tests.run.commands import lines, run, train


@pytest.fixture(scope="module")
def workdir(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    train(path, "--config.train.steps=30", data_dir=data_dir)
    return path


def evaluate(workdir: Path, data_dir: Path, *arguments: str) -> dict:
    out, _ = run("evaluate", f"--workdir={workdir}", *arguments, data_dir=data_dir)
    return json.loads(out.splitlines()[-1])


def test_any_mesh_and_batch(workdir: Path, data_dir: Path) -> None:
    """1000 pictures in batches of 200 on 1x2, against 4x2, and batches of 48, which leave a rest, on 1x1."""
    logged = lines(workdir)[-1]
    for flags in (("--batch_size=48", "--mesh=1x1"), ("--mesh=4x2",)):
        found = evaluate(workdir, data_dir, *flags)
        assert (found["step"], found["images"], found["views"]) == (30, 1000, 1)
        for name in ("loss", "top1_error", "top5_error"):
            assert found[name] == pytest.approx(logged[name], rel=1e-5)


def test_ten_views(workdir: Path, data_dir: Path) -> None:
    found = evaluate(workdir, data_dir, "--views=10", "--batch_size=40")
    assert (found["images"], found["views"]) == (1000, 10)
    assert 0 < found["top5_error"] <= found["top1_error"] < 1


def test_a_step_that_is_not_there(workdir: Path, data_dir: Path) -> None:
    _, err = run("evaluate", f"--workdir={workdir}", "--step=7", data_dir=data_dir, code=REFUSED)
    assert "has no checkpoint of step 7; there are 30" in err and len(err.splitlines()) == 1


def test_a_checkpoint_cut_short(workdir: Path, data_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(workdir, tmp_path / "copy")
    arrays = (tmp_path / "copy" / "checkpoints" / "30" / "arrays").rglob("*")
    largest = max((path for path in arrays if path.is_file()), key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    _, err = run("evaluate", f"--workdir={tmp_path / 'copy'}", data_dir=data_dir, code=REFUSED)
    assert err.startswith("error: cannot restore") and len(err.splitlines()) == 1
    assert err.endswith("delete it to go on from the one before\n")


def test_data_that_is_cut_short(workdir: Path, data_dir: Path, tmp_path: Path) -> None:
    """One line that says which command finds the damage, and that command names the file."""
    shutil.copytree(data_dir / "packed" / "toyshapes-72-raw", tmp_path / "packed" / "toyshapes-72-raw")
    file = next((tmp_path / "packed" / "toyshapes-72-raw").glob("*-validation.*"))
    os.truncate(file, file.stat().st_size // 2)
    _, err = run("evaluate", f"--workdir={workdir}", data_dir=tmp_path, code=REFUSED)
    advice = "python -m alexnet_jax.prepare --dataset=toyshapes --size=72 --verify"
    assert err.endswith(f"{advice}\n") and len(err.splitlines()) == 1
    _, err = run("prepare", *advice.split()[3:], data_dir=tmp_path, code=REFUSED)
    assert f"is damaged: {file.name}: " in err and len(err.splitlines()) == 1


def test_prepare_says_what_is_there(data_dir: Path, workdir: Path) -> None:
    del workdir  # it made the data
    out, _ = run("prepare", "--dataset=toyshapes", "--size=72", data_dir=data_dir)
    assert out.startswith("toyshapes: 4000 train, 1000 validation pictures, 10 classes; digest ")
