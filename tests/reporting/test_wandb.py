"""Weights & Biases, offline; where the package is not there, only that it is asked for."""

import contextlib
import dataclasses
import importlib.util
import json
import struct
import sys
from pathlib import Path

import pytest

from alexnet_jax.data.batches import open_packed
from alexnet_jax.errors import CONFIG, ConfigError, DivergedError
from alexnet_jax.reporting.account import check_wandb, load_wandb
from alexnet_jax.reporting.wandb import identity
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.training.loop import train
from configs import quickstart
from tests.commands.running import here, lines, narrow
from tests.commands.test_refusals import complaint

needs_it = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")


def exit_code(file: Path) -> int:
    """The exit code of an offline run, from its records in blocks of 32 KiB, as in LevelDB's log."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, record, codes = file.read_bytes(), 7, b"", []
    while at < len(data):
        if -at % 2**15 < 7:  # no head fits into what is left of the block
            at += -at % 2**15
        size, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part of one
            told, record = Record.FromString(record), b""
            if told.WhichOneof("record_type") == "exit":
                codes.append(told.exit.exit_code)
    [code] = codes
    return code


@needs_it
@pytest.mark.usefixtures("half_optimised")
def test_a_run_and_what_goes_on_with_it(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """All are one run there, with every figure, the kernels, the histograms, and the config.

    It is complete, goes on and is complete again, goes on and fails.
    """
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_wandb("toys")
    for steps, rate in ((4, 0.01), (6, 0.01), (10, 1e18)):
        given = {"train": {"log_every": 2}, "schedule": {"learning_rate": rate}}
        config = narrow(quickstart.get_config(), data_dir, steps, **given)
        config = dataclasses.replace(config, wandb="toys")
        fails = pytest.raises(DivergedError) if steps == 10 else contextlib.nullcontext()
        with fails:
            train(config, Workdir(str(tmp_path)), open_packed(config.data, 10), make_mesh(1, 2), quiet=True)
    load_wandb().teardown()  # returns when the process that writes has ended
    out, err = capfd.readouterr()
    assert "wandb:" not in out + err
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert [folder.name.split("-")[-1] for folder in folders] == 3 * [identity(tmp_path)]
    files = [file for folder in folders for file in folder.glob("*.wandb")]
    assert [exit_code(file) for file in files] == [0, 0, 1]
    told = b"".join(file.read_bytes() for file in files)
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
    monkeypatch.setitem(sys.modules, "wandb", None)
    flags = ("--config=configs/quickstart.py", f"--workdir={tmp_path / 'run'}", "--config.wandb=toys")
    _, err = here("main", *flags, data_dir=tmp_path, code=CONFIG)
    assert complaint(err) == "error: --config.wandb=toys needs another package: pip install wandb\n"
    assert not (tmp_path / "run" / "config.json").exists()
    (tmp_path / "wandb").mkdir()
    monkeypatch.delitem(sys.modules, "wandb")
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
