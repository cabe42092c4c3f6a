"""A checkpoint has the same error rates on any mesh and with any batch."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest

from alexnet_jax.data.batches import open_packed
from alexnet_jax.errors import REFUSED, RefusedError
from alexnet_jax.mesh import make_mesh
from alexnet_jax.run.checkpoint import Checkpoints
from alexnet_jax.run.loop import restore, train
from alexnet_jax.run.workdir import Workdir
from configs import quickstart
from tests.run.commands import lines, narrow, run


@pytest.fixture(scope="module")
def workdir(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    config = narrow(quickstart.get_config(), data_dir, 30)
    train(config, Workdir(str(path)), open_packed(config.data, 10), make_mesh(1, 2))
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


def test_a_step_that_is_not_there(workdir: Path) -> None:
    checkpoints = Checkpoints(Workdir(str(workdir)).checkpoints)
    assert checkpoints.choose(None) == checkpoints.choose(30) == 30
    with pytest.raises(RefusedError, match=f"{workdir} has no checkpoint of step 7; there are 30"):
        checkpoints.choose(7)


def test_a_checkpoint_cut_short(workdir: Path, tmp_path: Path) -> None:
    shutil.copytree(workdir, tmp_path / "copy")
    copy = Workdir(str(tmp_path / "copy"))
    arrays = (copy.checkpoints / "30" / "arrays").rglob("*")
    largest = max((path for path in arrays if path.is_file()), key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    with pytest.raises(RefusedError, match=r"cannot restore .*: delete it to go on from the one before"):
        restore(Checkpoints(copy.checkpoints), 30, copy.read_config(), make_mesh(1, 2))


def test_data_that_is_cut_short(workdir: Path, data_dir: Path, tmp_path: Path) -> None:
    """One line that says which command finds the damage."""
    shutil.copytree(data_dir / "packed" / "toyshapes-72-raw", tmp_path / "packed" / "toyshapes-72-raw")
    file = next((tmp_path / "packed" / "toyshapes-72-raw").glob("*-validation.*"))
    os.truncate(file, file.stat().st_size // 2)
    shutil.copytree(workdir, tmp_path / "copy")
    copy = Workdir(str(tmp_path / "copy"))
    config = copy.read_config()
    copy.adopt(dataclasses.replace(config, data=dataclasses.replace(config.data, dir=str(tmp_path))))
    _, err = run("evaluate", f"--workdir={copy.path}", data_dir=data_dir, code=REFUSED)
    advice = f"alexnet_jax.prepare --dataset=toyshapes --size=72 --data_dir={tmp_path} --verify"
    assert err.endswith(f"{advice}\n") and len(err.splitlines()) == 1


def test_prepare_says_what_is_there(data_dir: Path, workdir: Path) -> None:
    del workdir  # it made the data
    out, _ = run("prepare", "--dataset=toyshapes", "--size=72", data_dir=data_dir)
    before = "already packed; delete its folder to pack anew: "
    assert out.startswith(f"{before}toyshapes: 4000 train, 1000 validation pictures, 10 classes; digest ")
