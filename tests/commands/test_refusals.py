"""Mistakes of users end in one line that says what to do, with the right exit code."""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet_jax.config.building import build
from alexnet_jax.errors import CONFIG, DIVERGED, REFUSED, RefusedError
from alexnet_jax.storage.workdir import Workdir
from configs import quickstart
from tests.commands.running import NARROW, WIDTHS, here, run

QUICK = "--config=configs/quickstart.py"

FLAGS = [
    (["--config.train.batch_sise=4"], "unknown field config.train.batch_sise; .* config.train.batch_size"),
    (["--config.batch_size=4"], "unknown field config.batch_size; .* config.train.batch_size"),
    (["--config.trian.batch_size=4"], 'KeyError: .*Did you mean "train"'),
    (["--config.train.batch_size=ten"], "config.train.batch_size=ten"),
    (["--config.mesh.data=4", "--config.mesh.cpu_devices=8", "--config.train.batch_size=30"], "28 or 32"),
    (["--config.mesh.data=16"], "needs 16 devices, there are 8 .*mesh.cpu_devices=16"),
    (["--config.data.name=toyshapes21"], "network.classes=10, but toyshapes21 has 21 classes"),
    (["--config.mesh.tower=3"], "mesh.tower=3 does not divide network.towers=2; choose 1 or 2"),
    (["--config.network.image_size=10"], "network.image_size=10 is too small"),
    (["extra"], "unexpected argument 'extra'"),
    (["--unknown=1"], "Unknown command line flag 'unknown'"),
]


def complaint(err: str) -> str:
    """The only line on standard error."""
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1, err
    assert err.startswith("error: ")
    return err


@pytest.mark.parametrize(("arguments", "message"), FLAGS)
def test_flags(arguments: list[str], message: str, tmp_path: Path) -> None:
    _, err = here("main", QUICK, f"--workdir={tmp_path / 'run'}", *arguments, data_dir=tmp_path, code=CONFIG)
    assert re.search(message, complaint(err)), err
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/nowhere.py", "--workdir=x"], "configs/nowhere.py"),
        (
            ["--config=configs/imagenet.py:sauce", "--workdir=x"],
            "no variant 'sauce'; the nearest name is source",
        ),
        (["--workdir=x"], "--config is missing"),
        ([f"{QUICK}:fine_tune", "--workdir=x"], "stands for a run to begin with: say --config.init_from"),
        ([QUICK], "--workdir is missing; try --workdir=runs/quickstart"),
    ],
)
def test_config_files(arguments: list[str], message: str, tmp_path: Path) -> None:
    _, err = here("main", *arguments, data_dir=tmp_path, code=CONFIG)
    assert message in complaint(err)


def test_a_config_file_that_fails(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def get_config():\n    return missing\n")
    _, err = here("main", f"--config={tmp_path / 'broken.py'}", "--workdir=x", data_dir=tmp_path, code=CONFIG)
    assert "NameError: name 'missing' is not defined" in complaint(err)


def no_data(data_dir: Path, *arguments: str, how: Callable[..., tuple[str, str]] = here) -> str:
    """The complaint of training on ImageNet."""
    flags = ("--config=configs/imagenet.py", f"--workdir={data_dir / 'run'}", *arguments)
    _, err = how("main", *flags, data_dir=data_dir, code=REFUSED)
    assert re.search(
        "alexnet_jax.prepare --dataset=imagenet2012 .*--manual_dir=.* make quickstart", complaint(err)
    )
    return err


def test_data_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Says what is missing, where it should be, how to make it, and what needs none; by a process of its own,
    which has not spent seconds on importing TensorFlow.
    """
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['tensorflow'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    path = tmp_path / "packed" / "imagenet2012-256-raw"
    err = no_data(tmp_path, how=run)
    assert f"imagenet2012 (raw, 256 x 256) is not packed: there is no {path};" in err


def test_data_of_another_size_or_encoding(tmp_path: Path) -> None:
    (tmp_path / "packed" / "imagenet2012-256-jpeg").mkdir(parents=True)
    err = no_data(tmp_path)
    assert "imagenet2012-256-raw (only imagenet2012-256-jpeg);" in err
    assert "--size=128" in no_data(
        tmp_path, "--config.data.size=256", "--config.data.size=128", "--config.network.image_size=112"
    )


def test_data_that_is_half_made(tmp_path: Path) -> None:
    (tmp_path / "packed" / "imagenet2012-256-raw" / "making").mkdir(parents=True)
    assert "is not packed to the end" in no_data(tmp_path)


def test_data_with_one_split(tmp_path: Path) -> None:
    """A split that the marker does not name, and one whose files are gone."""
    path = tmp_path / "packed" / "imagenet2012-256-raw"
    path.mkdir(parents=True)
    facts = {"name": "", "source": "", "form": {}, "classes": 1000, "digest": "", "left_out": 0}
    train_split, validation = (
        {"pictures": 1, "files": {name: {"rows": 1, "digest": ""}}} for name in ("a", "b")
    )
    (path / "packed.json").write_text(json.dumps(facts | {"splits": {"train": train_split}}))
    assert "has no validation split" in no_data(tmp_path)
    splits = {"train": train_split, "validation": validation}
    (path / "packed.json").write_text(json.dumps(facts | {"splits": splits}))
    for name in ("a", "statistics.npz", "dataset_info.json", "features.json"):
        (path / name).write_text("")
    assert "lacks 1 of its 5 files, such as b" in no_data(tmp_path)


def train(workdir: Path, *arguments: str, data_dir: Path, code: int = 0) -> tuple[str, str]:
    """Trains a narrow network within this process."""
    return here("main", QUICK, f"--workdir={workdir}", *NARROW, *arguments, data_dir=data_dir, code=code)


def test_a_data_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    _, err = train(tmp_path / "run", data_dir=tmp_path / "file", code=REFUSED)
    assert "cannot write below" in complaint(err)


def test_a_workdir_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    _, err = train(tmp_path / "file" / "run", data_dir=tmp_path, code=REFUSED)
    assert "cannot write to --workdir" in complaint(err)


def test_a_workdir_of_another_network_and_a_corrupt_config(tmp_path: Path) -> None:
    values = quickstart.get_config().to_dict()
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    for name, width in (WIDTHS | {"fc7": 64}).items():
        values["network"][name]["width"] = width
    Workdir(str(tmp_path)).write_config(build(values))
    _, err = train(tmp_path, data_dir=tmp_path, code=REFUSED)
    assert "network.fc7.width=64, this config says 32" in complaint(err)
    (tmp_path / "config.json").write_text('{"seed": 0')
    _, err = train(tmp_path, data_dir=tmp_path, code=REFUSED)
    assert "config.json is corrupt" in complaint(err)
    (tmp_path / "config.json").write_text('{"sed": 0}')
    _, err = train(tmp_path, data_dir=tmp_path, code=REFUSED)
    assert "config.json does not fit this version (unknown field config.sed" in complaint(err)


HOPELESS = ("--config.schedule.learning_rate=1e9", "--config.train.steps=20", "--config.train.log_every=5")


@pytest.fixture(scope="module")
def diverged(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The workdir of a run at an impossible rate, and what it complained of."""
    workdir = tmp_path_factory.mktemp("diverged")
    return workdir, train(workdir, *HOPELESS, data_dir=data_dir, code=DIVERGED)[1]


def test_a_loss_that_is_no_number(diverged: tuple[Path, str]) -> None:
    """Nothing is saved of it, and the log stays JSON."""
    workdir, err = diverged
    words = (
        r"error: step (\d): loss .*, norms of gradients conv1 .*diverged.json; nothing was saved; lower sch"
    )
    assert re.match(words, complaint(err))
    assert not list((workdir / "checkpoints").glob("[0-9]*"))
    assert json.loads((workdir / "diverged.json").read_text())["loss"] is None


def test_what_saved_nothing_may_begin_anew(diverged: tuple[Path, str], tmp_path: Path) -> None:
    """In another way, in the same workdir; once a step is saved there, it is refused."""
    shutil.copytree(diverged[0], tmp_path / "run")
    workdir = Workdir(str(tmp_path / "run"))
    before = workdir.read_config()
    other = dataclasses.replace(before, seed=before.seed + 1)
    workdir.check_same(other)
    workdir.write_config(other)
    assert workdir.read_config() == other
    (workdir.checkpoints / "1").mkdir()
    with pytest.raises(RefusedError, match=f"holds a run with seed={other.seed}, this config says"):
        workdir.check_same(before)


@pytest.mark.slow
@pytest.mark.usefixtures("half_optimised")
def test_a_config_that_changes(data_dir: Path, tmp_path: Path) -> None:
    """Allowed changes are named; shapes that do not fit are refused, whatever is allowed."""
    flags, allow = ("--config.train.steps=2", "--config.train.log_every=2"), "--allow_config_change"
    train(tmp_path, *flags, data_dir=data_dir)
    later = ("--config.train.steps=4", "--config.optimizer.momentum=0.5", "--config.train.order=fixed")
    _, err = train(tmp_path, *flags, *later, data_dir=data_dir, code=REFUSED)
    words = (
        "holds a run with train.order=shuffled, this config says fixed; choose another --workdir, or say --a"
    )
    assert words in complaint(err)
    wide = ("--config.network.conv1.width=16", allow)
    _, err = train(tmp_path, *flags, *later, *wide, data_dir=data_dir, code=REFUSED)
    assert "does not fit: params/conv1/bias is (2, 4), this config needs (2, 8)" in complaint(err)
    out, _ = train(tmp_path, *flags, *later, allow, data_dir=data_dir)
    found = [line for line in out.splitlines() if line.startswith("config ")]
    assert found == [
        "config optimizer.momentum=0.5, until now 0.9",
        "config train.steps=4, until now 2",
        "config train.order=fixed, until now shuffled",
    ]


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--workdir=nowhere"], "holds no run", REFUSED),
        (["--workdir={run}"], "has no checkpoint yet", REFUSED),
        (["--workdir={run}", "--views=3"], "evaluation.views=3 must be 1", CONFIG),
        (["--workdir={run}", "--weights=fitted"], "--weights=fitted needs several runs", CONFIG),
        (["--workdir={run}", "--mesh=big"], "--mesh=big must be DATAxTOWER", CONFIG),
    ],
)
def test_evaluate(
    arguments: list[str], message: str, code: int, data_dir: Path, diverged: tuple[Path, str]
) -> None:
    filled = [argument.format(run=diverged[0]) for argument in arguments]
    _, err = here("evaluate", *filled, data_dir=data_dir, code=code)
    assert message in complaint(err)
