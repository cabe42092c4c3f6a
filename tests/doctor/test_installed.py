"""Versions against the project's lists, as pip reads them."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from alexnet_jax.doctor.findings import FIX, OK, WARN
from alexnet_jax.doctor.installed import (
    LIST,
    family,
    installed,
    packages,
    python,
)
from alexnet_jax.errors import REFUSED
from tests.commands.running import ROOT, run


def test_this_machine() -> None:
    found = {finding.name: finding for finding in installed()}
    assert [finding.verdict for finding in found.values()] == [OK] * 3
    assert f"jax {metadata.version('jax')}, jaxlib {metadata.version('jaxlib')}" in found["jax"].words
    assert f"flax {metadata.version('flax')}" in found["packages"].words


def test_what_is_missing_or_too_old(tmp_path: Path) -> None:
    (tmp_path / LIST).write_text("# a list\njax>=99  # from the future\n-r other\nno_such_thing>=1\n")
    words = f"jax is {metadata.version('jax')}, not >=99; no_such_thing is missing"
    verdict, said = packages(tmp_path)
    assert verdict == FIX
    assert said.startswith(words)
    assert said.endswith(f"pip install -U -r {LIST}")


def test_nothing_is_installed() -> None:
    """Python alone is enough to say so, right after a clone."""
    command = [sys.executable, "-I", "-S", "-c", "import sys; sys.path.insert(0, '.'); import runpy"]
    command[-1] += "; sys.argv = ['doctor']; runpy.run_module('alexnet_jax.doctor', run_name='__main__')"
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == REFUSED, done.stderr
    assert done.stderr == "error: 4 of these must be fixed first: python, jax, packages, imports\n"
    assert all("No module named" in line and line.count("\n") == 0 for line in done.stdout.splitlines())
    assert done.stdout.splitlines()[-1].endswith("pip install -U -r requirements-cpu.txt")


def test_no_lists(tmp_path: Path) -> None:
    """Only the package was copied."""
    assert packages(tmp_path)[0] == WARN
    assert python(tmp_path)[0] == OK


def test_python(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nrequires-python = ">=9.9"\n')
    verdict, words = python(tmp_path)
    assert verdict == FIX
    assert "this project needs >=9.9" in words


def pretend(folder: Path, name: str, version: str, *lines: str) -> None:
    """Writes the metadata of an installed package."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines])
    )


def test_jax_without_its_jaxlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path, "jaxlib", "0.9.0")
    monkeypatch.syspath_prepend(tmp_path)
    verdict, words = family()
    assert verdict == FIX
    assert f"jax {metadata.version('jax')} and jaxlib 0.9.0 do not belong together" in words
    assert words.endswith("pip install -U -r requirements-cpu.txt")


def test_jax_without_its_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of JAX than the one for which the GPU's part was built."""
    pretend(tmp_path, "jax-cuda12-plugin", "0.4.30", "Requires-Dist: jax-cuda12-pjrt==0.4.30")
    monkeypatch.syspath_prepend(tmp_path)
    verdict, words = family()
    assert verdict == FIX
    assert "jax-cuda12-plugin 0.4.30 do not belong together" in words
    assert words.endswith("pip install -U -r requirements.txt")


def test_a_plugin_without_its_other_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX itself does not check this."""
    jax = metadata.version("jax")
    pretend(tmp_path, "jax-cuda12-plugin", jax, f"Requires-Dist: jax-cuda12-pjrt=={jax}")
    pretend(tmp_path, "jax-cuda12-pjrt", "0.4.30")
    monkeypatch.syspath_prepend(tmp_path)
    verdict, words = family()
    assert verdict == FIX
    assert f"jax-cuda12-plugin {jax} and jax-cuda12-pjrt 0.4.30 do not belong together" in words


def test_a_package_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line, not a traceback, although commands need it for their flags."""
    (tmp_path / "flax.py").write_text("raise ImportError('libthis.so: cannot open shared object file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    out, err = run("doctor", data_dir=tmp_path, code=4)
    assert "imports    fix   ImportError: libthis.so: cannot open shared object file: pip install" in out
    assert err == "error: 1 of these must be fixed first: imports\n"
