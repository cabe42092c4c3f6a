"""python -m alexnet_jax.doctor on this machine, as it is and with things that are broken."""

import dataclasses
import json
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from alexnet_jax.config import Config
from alexnet_jax.data.archives import OPEN_FILES
from alexnet_jax.errors import CONFIG, REFUSED
from alexnet_jax.run import checkup, hardware
from alexnet_jax.run.checkup import FILES, open_files
from alexnet_jax.run.findings import MEND, OK, WARN, Finding, Looker
from alexnet_jax.run.installed import CUDA, version
from tests.run.commands import ROOT, command, here, run
from tests.run.test_lock import held

QUICK = "--config=configs/quickstart.py"


def lines(out: str) -> list[tuple[str, str, str]]:
    """Name, verdict and words of each."""
    return [re.fullmatch(r"(.{10}) (.{4})  (.*)", line).groups() for line in out.splitlines()]


def verdicts(out: str) -> dict[str, tuple[str, str]]:
    return {name.strip(): (verdict.strip(), words) for name, verdict, words in lines(out)}


@pytest.fixture
def folder(packed_path: Path, tmp_path: Path) -> Path:
    """A data folder with a few toyshapes as the quickstart wants them."""
    shutil.copytree(packed_path, tmp_path / "data" / "packed" / "toyshapes-72-raw")
    return tmp_path / "data"


@pytest.fixture
def not_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices are looked at within this process, which has eight."""

    def look(looker: Looker, *given: object) -> Iterator[Finding]:
        yield from (said for said in looker(*given) if isinstance(said, Finding))

    monkeypatch.setattr(checkup, "apart", look)
    monkeypatch.setattr(hardware, "simulate_cpu_devices", lambda _: None)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # as the checks do


@pytest.mark.slow
def test_a_machine_that_works(folder: Path, tmp_path: Path) -> None:
    """A line for each thing, nothing to mend, and nothing is changed."""
    before = sorted(tmp_path.rglob("*"))
    flags = (QUICK, f"--workdir={tmp_path / 'run'}", "--config.mesh.cpu_devices=4")
    out, err = run("doctor", *flags, data_dir=folder)
    assert err == ""
    *all_lines, last = out.splitlines()
    assert last == "all is well"
    found = verdicts("\n".join(all_lines))
    seldom = {"gpu", "pages"}  # not on every machine
    names = ["python", "jax", "packages", "workdir", "run disk", "data", "data disk", "open files", "devices"]
    names += ["mesh", "memory", "exchange", "tensorflow", "pictures"]
    assert [name for name in found if name not in seldom] == names
    assert {name for name, (verdict, _) in found.items() if verdict != OK} <= seldom
    for name, words in (
        ("workdir", f"{tmp_path / 'run'} is made by the run"),
        ("data", "toyshapes-72-raw: few: 40 train, 20 validation pictures, 10 classes"),
        ("devices", "4 x cpu, simulated as mesh.cpu_devices asks"),
        ("mesh", "2 x 2 (data x tower)"),
        ("exchange", "of 1 MiB from each of 4 devices, with the right numbers"),
        ("pictures", "toyshapes can be read"),
    ):
        assert words in found[name][1]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("not_apart")
def test_much_is_broken(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it is told, and the machine's own devices are looked at."""
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 550.54.15, 81000, 81559'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{smi.parent}:/usr/bin:/bin")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"seed": 0')
    (folder / "packed" / "toyshapes-72-raw" / "features.json").unlink()
    flags = ("--config=configs/imagenet.py", f"--workdir={tmp_path / 'run'}")
    monkeypatch.setattr(hardware, "platforms", str)  # as where nobody has chosen
    out, err = here("doctor", *flags, data_dir=folder, code=REFUSED)
    found = verdicts(out)
    assert found["gpu"][0] == OK
    assert found["workdir"] == (
        MEND,
        f"{tmp_path}/run/config.json is corrupt: Expecting ',' delimiter: line 1 column 11 (char 10)",
    )
    data = [(verdict.strip(), words) for name, verdict, words in lines(out) if name == "data      "]
    assert [verdict for verdict, _ in data] == [MEND, WARN]
    assert "make it with: python -m alexnet_jax.prepare --dataset=imagenet2012 " in data[0][1]
    assert "lacks 1 of its 5 files, such as features.json" in data[1][1]
    if not any(map(version, CUDA)):
        words = "but there is an NVIDIA GPU, and jax is the CPU build: pip install -r requirements.txt"
        assert found["devices"] == (MEND, f"8 x cpu, {words}")
    bad = [name.strip() for name, verdict, _ in lines(out) if verdict == MEND]
    assert err == f"error: {len(bad)} of these must be mended first: {', '.join(bad)}\n"


@pytest.mark.usefixtures("not_apart")
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
    assert err == "error: 1 of these must be mended first: workdir\n", out
    assert f"{tmp_path / 'run'} is in use by process {other.pid} on " in found["workdir"][1]
    assert "toyshapes-72-raw: few" in found["data"][1]
    assert found["mesh"][1].startswith("1 x 2 ")


@pytest.mark.slow
def test_libraries_that_end_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As XLA does where it does not know a flag."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_no_such_flag=1")
    out, err = run("doctor", QUICK, data_dir=tmp_path, code=REFUSED)
    name, verdict, words = lines(out)[-1]
    assert (name.strip(), verdict) == ("devices", MEND)
    assert re.search("process that looks ended with .*, with XLA_FLAGS=--xla_no_such_flag=1 .* set", words)
    assert "Traceback" not in err
    assert err.endswith("error: 1 of these must be mended first: devices\n")


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
    """As after `| head -1`: it ends without a word."""
    process = command("doctor", data_dir=tmp_path)
    process.stdout.readline()
    process.stdout.close()
    assert (process.stderr.read(), process.wait(300)) == ("", -signal.SIGPIPE)


def test_open_files(folder: Path, narrow: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """All files of the data set stay open. The limit is not set: this process may have more files open."""
    data = dataclasses.replace(narrow.data, name="toyshapes", dir=str(folder))
    config, need = dataclasses.replace(narrow, data=data), FILES + 2
    monkeypatch.setattr(resource, "getrlimit", lambda _: (need, need))
    assert open_files(config)[0] != MEND
    monkeypatch.setattr(resource, "getrlimit", lambda _: (need - 1, need))
    verdict, words = open_files(config)
    assert verdict == MEND
    assert words.startswith(f"{need - 1} at once, and ")
    assert words.endswith(f"a run opens up to {need}: ulimit -n {need}")


def test_files_that_nobody_may_open() -> None:
    """The limit that a process cannot raise: too low for TFDS to unpack ImageNet."""
    code = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000))\n"
    code += "from alexnet_jax.run.checkup import open_files; print(open_files(None))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"('{WARN}', '1000 at once, and 1000 if asked for; to unpack ImageNet {OPEN_FILES} " in done.stdout


@pytest.mark.parametrize(
    ("kernel", "tunables", "verdict", "words"),
    [
        ("[always] madvise never", "", OK, "given (always)"),
        ("always [madvise] never", "a.b=1:glibc.malloc.hugetlb=1", OK, "given (madvise)"),
        ("always [madvise] never", "", WARN, "GLIBC_TUNABLES=glibc.malloc.hugetlb=1 makes a step on a CPU"),
        ("always madvise [never]", "glibc.malloc.hugetlb=1", WARN, "large ones are switched off in"),
    ],
)
def test_large_pages(
    kernel: str, tunables: str, verdict: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "enabled").write_text(kernel + "\n")
    monkeypatch.setattr(checkup, "LARGE_PAGES", tmp_path / "enabled")
    monkeypatch.setenv("GLIBC_TUNABLES", tunables)
    found = checkup.large_pages()
    assert found[0] == verdict
    assert words in found[1]
