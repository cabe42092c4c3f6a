"""From ImageNet's archives to error rates, through the commands, with the genuine TFDS builder."""

import json
from pathlib import Path

import pytest

from alexnet_jax.data.batches import open_packed
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.training.loop import train
from configs import imagenet
from tests.commands.running import NARROW, here, lines, narrow
from tests.data.images import write_archives, write_folders

pytestmark = [pytest.mark.usefixtures("half_optimised"), pytest.mark.slow]
SIZE = ("--config.data.size=72", "--config.network.image_size=64")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with both archives, and the same pictures in folders."""
    root = tmp_path_factory.mktemp("imagenet")
    write_archives(root / "manual", 20, 30)
    write_folders(root / "folders", 20, 30)
    return root


def prepare(home: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    flags = ("--dataset=imagenet2012", "--size=72", "--processes=1", f"--tfds_dir={home / 'tfds'}")
    return here("prepare", *flags, *arguments, data_dir=home, code=code)


def test_from_archives_to_error_rates(home: Path) -> None:
    """Prepare, 30 steps of the paper's recipe on a narrow network, evaluate; folders give the same set."""
    out, _ = prepare(home, f"--manual_dir={home / 'manual'}", "--archives=any")
    assert "60 train, 30 validation pictures, 1000 classes; digest " in out
    other, _ = prepare(home, f"--folder={home / 'folders'}", f"--data_dir={home / 'other'}")
    assert out.splitlines()[-2].split(" in ")[0] == other.splitlines()[-2].split(" in ")[0]
    next_command = "main --config=configs/imagenet.py --workdir=runs/imagenet --config.data.size=72"
    next_command += " --config.network.image_size=63"
    assert out.splitlines()[-1] == f"next: python -m alexnet_jax.{next_command}"
    flags = ("--config=configs/imagenet.py", f"--workdir={home / 'run'}", *NARROW, *SIZE)
    short = ("--config.train.steps=30", "--config.train.log_every=10", "--config.evaluation.batch_size=16")
    here("main", *flags, *short, data_dir=home)
    final = lines(home / "run")[-1]
    assert (final["step"], final["split"]) == (30, "final")
    validations = [line["step"] for line in lines(home / "run") if line["split"] == "validation"]
    assert validations == [4, 8, 12, 15, 19, 23, 27, 30]  # after each epoch of 60 pictures in batches of 16
    out, _ = here("evaluate", f"--workdir={home / 'run'}", data_dir=home)
    found = json.loads(out.splitlines()[-1])
    assert (found["step"], found["images"]) == (30, 30)
    assert found["loss"] == pytest.approx(final["loss"], rel=1e-5)


def test_jpegs_and_their_trace(home: Path) -> None:
    """Trained from JPEGs, with a digest of what each step has read: the same in a run that was resumed."""
    folder = (f"--folder={home / 'folders'}", "--encoding=jpeg")
    prepare(home, *folder)
    assert "every picture read back" in prepare(home, *folder, "--verify")[0]
    chosen = {"name": "imagenet2012", "size": 72, "encoding": "jpeg", "trace": True}
    sections = {"network": {"image_size": 64}, "data": chosen, "evaluation": {"batch_size": 16}}
    fixed = {"train": {"batch_size": 20, "order": "fixed"}}
    for name, steps, more in (("whole", 6, {}), ("parts", 4, {}), ("parts", 6, {}), ("fixed", 6, fixed)):
        config = narrow(imagenet.get_config(), home, steps, **sections, **more)
        train(config, Workdir(str(home / name)), open_packed(config.data, 1000), make_mesh(1, 2))
    traces = [(home / run / "trace.jsonl").read_text() for run in ("whole", "parts")]
    assert traces[0] == traces[1]
    digests = [json.loads(line) for line in traces[0].splitlines()]
    assert [line["step"] for line in digests] == list(range(1, 7))
    assert len({line["digest"] for line in digests}) == 6
    again = [json.loads(line)["digest"] for line in (home / "fixed" / "trace.jsonl").read_text().splitlines()]
    assert again[:3] == again[3:] and len(set(again)) == 3  # 60 pictures are three batches of 20
