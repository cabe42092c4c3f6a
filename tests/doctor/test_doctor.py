"""python -m alexnet_jax.doctor on this machine, as it is and with things that are broken."""

import dataclasses
import json
import re
import shutil
import signal
from pathlib import Path

import pytest

from alexnet_jax.config.fields import Config
from alexnet_jax.doctor import machine
from alexnet_jax.doctor.findings import FIX, OK
from alexnet_jax.doctor.installed import CUDA, version
from alexnet_jax.errors import CONFIG, REFUSED
from tests.commands.running import command, here, run
from tests.storage.test_lock import held

QUICK = "--config=configs/quickstart.py"


def verdicts(out: str) -> dict[str, tuple[str, str]]:
    """The verdict and the words of each name."""
    found = [re.fullmatch(r"(.{10}) (.{4})  (.*)", line) for line in out.splitlines()]
    return {line[1].strip(): (line[2].strip(), line[3]) for line in found if line}


@pytest.fixture
def folder(packed_path: Path, tmp_path: Path) -> Path:
    """A data folder with a few toyshapes as the quickstart wants them."""
    shutil.copytree(packed_path, tmp_path / "data" / "packed" / "toyshapes-72-raw")
    return tmp_path / "data"


@pytest.fixture
def eight_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps the eight devices of this process."""
    monkeypatch.setattr(machine, "simulate_cpu_devices", lambda _: None)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # as the checks do


@pytest.mark.slow
def test_a_machine_that_works(folder: Path, tmp_path: Path) -> None:
    """A line for each thing, nothing to fix, and nothing is changed."""
    before = sorted(tmp_path.rglob("*"))
    flags = (QUICK, f"--workdir={tmp_path / 'run'}", "--config.mesh.cpu_devices=4")
    out, err = run("doctor", *flags, data_dir=folder)
    assert err == ""
    assert out.splitlines()[-1] == "all is well"
    found, seldom = verdicts(out), {"gpu", "pages"}  # not on every machine
    names = ["python", "jax", "packages", "workdir", "run disk", "data", "data disk", "open files", "devices"]
    names += ["mesh", "memory", "tensorflow", "pictures"]
    assert [name for name in found if name not in seldom] == names
    assert {name for name, (verdict, _) in found.items() if verdict != OK} <= seldom
    for name, words in (
        ("workdir", f"{tmp_path / 'run'} holds no run yet"),
        ("data", "toyshapes-72-raw: few: 40 train, 20 validation pictures, 10 classes"),
        ("devices", "4 x cpu (cpu)"),
        ("mesh", "2 x 2 (data x tower), 0 of 4 devices idle"),
        ("pictures", "toyshapes can be read"),
    ):
        assert words in found[name][1]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("eight_devices")
def test_much_is_broken(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it is said; the machine's own devices are looked at."""
    monkeypatch.setattr(machine, "gpus", lambda: True)
    monkeypatch.setattr(machine, "driver", lambda: (OK, "H100"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"seed": 0')
    flags = ("--config=configs/imagenet.py", f"--workdir={tmp_path / 'run'}")
    monkeypatch.setattr(type(machine.jax.config), "jax_platforms", None)  # nobody has chosen
    out, err = here("doctor", *flags, data_dir=folder, code=REFUSED)
    found = verdicts(out)
    assert found["gpu"] == (OK, "H100")
    assert (
        found["workdir"][0] == FIX and f"{tmp_path}/run/config.json is corrupt: Expect" in found["workdir"][1]
    )
    assert "make it with: python -m alexnet_jax.prepare --dataset=imagenet2012 " in found["data"][1]
    if not any(map(version, CUDA)):
        words = "but there is an NVIDIA GPU, and jax is the CPU build: pip install -r requirements.txt"
        assert found["devices"] == (FIX, f"8 x cpu (cpu), {words}")
    bad = [name for name, (verdict, _) in found.items() if verdict == FIX]
    assert err == f"error: {len(bad)} of these must be fixed first: {', '.join(bad)}\n"


@pytest.mark.usefixtures("eight_devices")
def test_the_config_of_a_run(folder: Path, tmp_path: Path, narrow: Config) -> None:
    """Is the one that is looked for where no other is given; a run that is alive keeps others out."""
    (tmp_path / "run").mkdir()
    mesh = dataclasses.replace(narrow.mesh, data=1, tower=2)
    data = dataclasses.replace(narrow.data, name="toyshapes", dir=str(folder))
    config = dataclasses.asdict(dataclasses.replace(narrow, mesh=mesh, data=data))
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with held(tmp_path / "run") as other:
        out, err = here("doctor", f"--workdir={tmp_path / 'run'}", data_dir=tmp_path / "empty", code=REFUSED)
    found = verdicts(out)
    assert err == "error: 1 of these must be fixed first: workdir\n", out
    assert f"{tmp_path / 'run'} is in use by process {other.pid} on " in found["workdir"][1]
    assert "toyshapes-72-raw: few" in found["data"][1]
    assert found["mesh"][1] == "1 x 2 (data x tower), 6 of 8 devices idle"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config=configs/nowhere.py"], "configs/nowhere.py"),
        ([QUICK, "--config.mesh.cpu_devises=2"], "the nearest name is config.mesh.cpu_devices"),
    ],
)
def test_flags(arguments: list[str], words: str, tmp_path: Path) -> None:
    """Are refused as by every command, before anything is looked at."""
    out, err = here("doctor", *arguments, data_dir=tmp_path, code=CONFIG)
    assert out == ""
    assert words in err


@pytest.mark.slow
def test_nobody_reads_on(tmp_path: Path) -> None:
    """It ends without a word, as after `| head -1`."""
    process = command("doctor", data_dir=tmp_path)
    process.stdout.readline()
    process.stdout.close()
    assert (process.stderr.read(), process.wait(300)) == ("", -signal.SIGPIPE)
