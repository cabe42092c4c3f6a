"""A checkpoint has the same error rates on any mesh and with any batch."""

import contextlib
import dataclasses
import gc
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from alexnet_jax.data.batches import open_packed
from alexnet_jax.errors import REFUSED, ConfigError, RefusedError
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.storage.checkpoint import Checkpoints
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.trained.ensemble import check_alike, evaluate_together
from alexnet_jax.trained.opened import load_run
from alexnet_jax.training.loop import train
from alexnet_jax.training.opening import restore
from configs import quickstart
from tests.commands.running import here, lines, narrow


@pytest.fixture(scope="module")
def workdir(trained: Path) -> Path:
    return trained


def evaluate(workdir: Path | str, data_dir: Path, *arguments: str) -> dict:
    out, _ = here("evaluate", f"--workdir={workdir}", *arguments, data_dir=data_dir)
    return json.loads(out.splitlines()[-1])


def test_any_mesh_and_batch(workdir: Path, data_dir: Path) -> None:
    """1000 pictures in batches of 200 on 1x2, against 4x2, and batches of 48, which leave a rest, on 1x1."""
    logged = lines(workdir)[-1]
    for flags in (("--batch_size=48", "--mesh=1x1"), ("--mesh=4x2",)):
        found = evaluate(workdir, data_dir, *flags)
        assert (found["step"], found["images"], found["views"]) == (30, 1000, 1)
        for name in ("loss", "top1_error", "top5_error"):
            assert found[name] == pytest.approx(logged[name], rel=1e-5)


@pytest.mark.slow
def test_ten_views(workdir: Path, data_dir: Path) -> None:
    found = evaluate(workdir, data_dir, "--views=10", "--batch_size=40")
    assert (found["images"], found["views"]) == (1000, 10)
    assert 0 < found["top5_error"] <= found["top1_error"] < 1


@pytest.mark.slow
@pytest.mark.usefixtures("half_optimised")
def test_several_as_one(workdir: Path, data_dir: Path, tmp_path: Path) -> None:
    """The probabilities of two runs, on meshes and with networks of their own, are averaged."""
    recipe = quickstart.get_config("half")
    other = narrow(recipe, data_dir, 30, mesh={"data": 1, "tower": 1})
    train(other, Workdir(str(tmp_path)), open_packed(other.data, 10), make_mesh(1, 1))
    found = evaluate(f"{workdir},{tmp_path}", data_dir)
    runs = [load_run(Workdir(str(path)), mesh=make_mesh(1, 1)) for path in (workdir, tmp_path)]
    (one, labels), (two, _) = (run.answers for run in runs)
    mean = (np.exp(np.float64(one)) + np.exp(np.float64(two))) / 2
    truth = mean[np.arange(1000), labels]
    assert found["loss"] == pytest.approx(-np.log(truth).mean(), rel=1e-5)
    assert found["top1_error"] == pytest.approx(np.mean((mean > truth[:, None]).any(axis=1)), abs=1e-6)
    logged = [lines(path)[-1] for path in (workdir, tmp_path)]
    for member, line in zip(found["members"], logged, strict=True):
        assert (member["step"], member["weight"]) == (30, 0.5)
        assert member["loss"] == pytest.approx(line["loss"], rel=1e-5)
        assert member["top5_error"] == pytest.approx(line["top5_error"], rel=1e-5)
    fitted = evaluate_together(runs, fitted=True)
    assert fitted["top5_error"] <= found["top5_error"]


def test_runs_that_know_other_classes(workdir: Path) -> None:
    run = Workdir(str(workdir))
    config = run.read_config()
    network = dataclasses.replace(config.network, classes=21)
    others = [config, dataclasses.replace(config, network=network)]
    with pytest.raises(ConfigError, match=r"knows 10 classes of toyshapes by 1 views, .* 21 of toyshapes"):
        check_alike([run, run], others)


def test_a_checkpoint_cut_short(workdir: Path, tmp_path: Path) -> None:
    """One complaint; reads that were under way must not complain later."""
    shutil.copytree(workdir, tmp_path / "copy")
    copy = Workdir(str(tmp_path / "copy"))
    arrays = (copy.checkpoints / "30" / "arrays").rglob("*")
    largest = max((path for path in arrays if path.is_file()), key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    with contextlib.closing(Checkpoints(copy.checkpoints)) as checkpoints:
        for step, words in ((30, r"/30 is damaged \("), (None, "no checkpoint in .* is whole, of 1")):
            with pytest.raises(RefusedError, match=words):
                restore(checkpoints, step, copy.read_config(), make_mesh(1, 2))
    time.sleep(1)
    gc.collect()  # what complains then fails this test


def test_data_that_is_cut_short(workdir: Path, data_dir: Path, tmp_path: Path) -> None:
    """One line that says which command finds the damage."""
    shutil.copytree(data_dir / "packed" / "toyshapes-72-raw", tmp_path / "packed" / "toyshapes-72-raw")
    file = next((tmp_path / "packed" / "toyshapes-72-raw").glob("*-validation.*"))
    os.truncate(file, file.stat().st_size // 2)
    shutil.copytree(workdir, tmp_path / "copy")
    copy = Workdir(str(tmp_path / "copy"))
    config = copy.read_config()
    copy.write_config(dataclasses.replace(config, data=dataclasses.replace(config.data, dir=str(tmp_path))))
    _, err = here("evaluate", f"--workdir={copy.path}", data_dir=data_dir, code=REFUSED)
    advice = f"alexnet_jax.prepare --dataset=toyshapes --size=72 --data_dir={tmp_path} --verify"
    assert err.endswith(f"{advice}\n") and len(err.splitlines()) == 1


def test_prepare_says_what_is_there(data_dir: Path, workdir: Path) -> None:
    del workdir  # it made the data
    out, _ = here("prepare", "--dataset=toyshapes", "--size=72", data_dir=data_dir)
    before = "already packed; delete its folder to pack anew: "
    assert out.startswith(f"{before}toyshapes: 4000 train, 1000 validation pictures, 10 classes; digest ")
