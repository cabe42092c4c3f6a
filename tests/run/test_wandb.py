"""Weights & Biases, offline; where the package is not there, only that it is asked for."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from alexnet_jax.data.batches import open_packed
from alexnet_jax.errors import CONFIG, ConfigError
from alexnet_jax.mesh import make_mesh
from alexnet_jax.run.account import check_wandb
from alexnet_jax.run.loop import train
from alexnet_jax.run.wandb import identity
from alexnet_jax.run.workdir import Workdir
from configs import quickstart
from tests.run.commands import lines, narrow, run
from tests.run.test_refusals import complaint

needs_it = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")


@needs_it
def test_a_run_and_what_goes_on_with_it(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Both are one run there, with every figure, the kernels, the histograms, and the config."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_wandb("toys")
    for steps in (4, 6):
        config = narrow(quickstart.get_config(), data_dir, steps, train={"log_every": 2})
        config = dataclasses.replace(config, wandb="toys")
        train(config, Workdir(str(tmp_path)), open_packed(config.data, 10), make_mesh(1, 2), quiet=True)
    out, err = capfd.readouterr()
    assert "wandb:" not in out + err
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert [folder.name.split("-")[-1] for folder in folders] == 2 * [identity(tmp_path)]
    told = b"".join(file.read_bytes() for file in (tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    for line in lines(tmp_path, but=()):
        for name, value in line.items():
            if name not in ("step", "split"):
                assert f"{line['split']}/{name}".encode() in told
                assert json.dumps(value).encode() in told, (name, value)
    for words in ("toys", "fc8/bias tower 1", "optimizer.momentum", "train/waiting", "conv1/kernels"):
        assert words.encode() in told, words
    assert len(list((tmp_path / "wandb").glob("offline-run-*/files/media/images/conv1/kernels_*.png"))) >= 2


@needs_it
def test_an_account_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one nothing is asked for on the terminal."""
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "NETRC", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    with pytest.raises(ConfigError, match="toys needs an account: wandb login, or set WANDB_MODE=offline"):
        check_wandb("toys")


def test_a_package_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused at once, before there is a run; a folder that is called so is no package."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['wandb'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    flags = ("--config=configs/quickstart.py", f"--workdir={tmp_path / 'run'}", "--config.wandb=toys")
    _, err = run("main", *flags, data_dir=tmp_path, code=CONFIG)
    assert complaint(err) == "error: --config.wandb=toys needs another package: pip install wandb\n"
    assert not (tmp_path / "run" / "config.json").exists()
    (tmp_path / "wandb").mkdir()
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ConfigError, match="pip install wandb"):
        check_wandb("toys")


def test_nothing_is_asked_of_who_does_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    check_wandb("")


def test_an_identity_stays(tmp_path: Path) -> None:
    first = identity(tmp_path)
    assert identity(tmp_path) == first
    assert len(first) == 8
