"""Sweeps: real ones, stopped and shared out; and how they take what can happen to a run."""

import json
import os
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from alexnet_jax.errors import (
    CONFIG,
    DIVERGED,
    PREEMPTED,
    REFUSED,
    ConfigError,
    Interrupted,
    RefusedError,
)
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.sweep import running as sweep
from alexnet_jax.sweep.jobs import SweepRun, deal, outcome, refuse, write_table
from alexnet_jax.sweep.running import SweepReport, run_all
from tests.commands.running import NARROW, here, lines

PYTHON = sys.executable
QUICK = "--config=configs/quickstart.py"
# ReLUs have no numbers after a step at this rate; tanh has.
FLAGS = (
    *(QUICK, "--variants=tanh paper", "--seeds=3", *NARROW),
    *("--config.schedule.learning_rate=1e9", "--config.train.steps", "3", "--config.train.log_every=1"),
)

# The library that loads config files does it in an old way.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


# Stands for Python: a run that waits at its first step until it has been told to stop.
WAITING = """
import pathlib, runpy, sys, threading
from alexnet_jax.signals import Guard
from alexnet_jax.reporting.report import Report

told, note, step = threading.Event(), Guard._note, Report.step

def noted(*given):
    note(*given)
    told.set()

def waiting(report, done):
    step(report, done)
    pathlib.Path(sys.argv[-1].removeprefix("--workdir="), "waiting").touch()
    assert told.wait(300)

Guard._note, Report.step = noted, waiting
sys.argv = sys.argv[2:]
runpy.run_module("alexnet_jax.main", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
def test_stopped_and_shared_out(data_dir: Path, tmp_path: Path, printing: Path) -> None:
    """Two jobs at once, one of which is stopped: started again it goes on, then nothing is left to do."""
    root = tmp_path / "sweep"
    flags = (*FLAGS, f"--workdir={root}")
    tanh, paper = (root / variant / "seed-3" for variant in ("tanh", "paper"))
    write_script(printing, f"exec {PYTHON} -c '{WAITING}' \"$@\"")
    look, said = SweepReport.look, []

    def other_job(self: SweepReport, job: SweepRun) -> None:
        """Runs the other share once this one's run is under way, then stops this one."""
        look(self, job)
        if (tanh / "waiting").exists() and not said:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sweep.sys, "executable", PYTHON)
                said.append("")
                said[0], _ = here("sweep", *flags, "--share=1/2", data_dir=data_dir)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SweepReport, "look", other_job)
        _, err = here("sweep", *flags, "--share=0/2", data_dir=data_dir, code=PREEMPTED)
    assert err == "stopped, 0 of 1 runs are done; the same command goes on\n"
    assert re.search(r"^1/1  paper, seed 3 +diverged  in \d\d:\d\d, 00:00 left$", said[0], re.MULTILINE), said

    sweep.sys.executable = PYTHON
    here("sweep", *flags, "--share=0/2", data_dir=data_dir)
    log = (tanh / "log.txt").read_text()
    assert "stopped and saved at step 1" in log and "resuming at step 1 of 3" in log
    assert "norms of gradients" in (paper / "diverged.txt").read_text()
    row, other = json.loads((root / "table.json").read_text())
    final = lines(tanh)[-1]
    assert (final["split"], row["top1_errors"]) == ("final", [final["top1_error"]])
    assert (row["steps"], row["seeds"], other["diverged"]) == ([3], [3], [3])
    for path, activation in ((tanh, "tanh"), (paper, "relu")):
        config = json.loads((path / "config.json").read_text())
        assert (config["seed"], config["network"]["activation"]) == (3, activation)

    before = [(path / "log.txt").read_text() for path in (tanh, paper)]
    out, _ = here("sweep", *flags, data_dir=data_dir)
    assert "here   2 of them, 2 done before" in out and "started" not in out
    table = out[out.index("variant") :]
    out, _ = here("sweep", *flags, "--table", data_dir=data_dir)
    assert "done before" not in out and out.strip() in table
    assert before == [(path / "log.txt").read_text() for path in (tanh, paper)]
    assert "paper    0 of 1, 1 diverged" in out
    assert "| paper | 0 of 1, 1 diverged |" in (root / "table.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variants=paper no_lnr"], "there is no variant 'no_lnr'; the nearest name is no_lrn"),
        (["--variants=paper half", "--config.mesh.tower=2"], "variant half: mesh.tower=2 does not divide"),
        (["--variants=paper", "--config.seed=3", "--table"], "--config.seed is another one in every run"),
        (["--variants=paper", "--seeds=1,2,1"], "--seeds names 1 twice"),
    ],
)
def test_mistakes(arguments: list[str], message: str, tmp_path: Path) -> None:
    """In one line, and before anything runs."""
    root = tmp_path / "sweep"
    _, err = here("sweep", QUICK, *arguments, f"--workdir={root}", data_dir=tmp_path, code=CONFIG)
    assert message in err and err.startswith("error: ") and len(err.splitlines()) == 1
    assert not root.exists()


@pytest.fixture
def jobs(tmp_path: Path) -> list[SweepRun]:
    flags = {name: (f"{QUICK}:{name}",) for name in ("paper", "half", "source,no_lrn")}
    return deal(flags, [5, 7], Workdir(str(tmp_path)))


def test_deal(jobs: list[SweepRun], tmp_path: Path) -> None:
    """Seed by seed, each run in a folder of its own; shares are all of them, once."""
    assert [job.name for job in jobs[:4]] == [
        *("paper, seed 5", "half, seed 5", "source,no_lrn, seed 5", "paper, seed 7")
    ]
    assert jobs[5].flags == (f"{QUICK}:source,no_lrn", "--config.seed=7")
    assert jobs[5].workdir.path == tmp_path / "source+no_lrn" / "seed-7"  # commas part runs for `evaluate`
    assert (jobs[4].config.seed, jobs[4].config.network.towers) == (7, 1)
    assert len({job.workdir.path for job in jobs}) == 6


def test_jobs_that_cannot_be(tmp_path: Path) -> None:
    """Two of the same, and one whose ancestor does not fit, are refused before any begins."""
    root = Workdir(str(tmp_path / "sweep"))
    same = {name: (f"{QUICK}:{name}",) for name in ("source", "source,hand_145")}
    with pytest.raises(
        ConfigError, match="variants source and source,hand_145 are the same with this config"
    ):
        deal(same, [0], root)
    begun = f"--config.init_from={tmp_path}"
    jobs = deal({"paper": (f"{QUICK}:paper", begun), "half": (f"{QUICK}:half", begun)}, [0], root)
    Workdir(str(tmp_path)).write_config(jobs[0].config)
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"is a run with network\.towers=2, this config says 1"):
        refuse(jobs)


def finish(job: SweepRun) -> None:
    """Leaves what a whole run leaves last."""
    job.workdir.append({"step": 9, "split": "final", "loss": 1.0, "top1_error": 0.1, "top5_error": 0.0})


def test_figures_of_another_kind(jobs: list[SweepRun]) -> None:
    """Runs that are compared differ in what the variants change, and in nothing else."""
    job = jobs[0]
    job.workdir.path.mkdir(parents=True)
    job.workdir.write_config(replace(job.config, train=replace(job.config.train, log_every=7)))
    refuse(jobs)
    job.workdir.write_config(replace(job.config, schedule=replace(job.config.schedule, learning_rate=0.5)))
    message = r"holds a run with schedule.learning_rate=0\.5, this config says 0\.01"
    with pytest.raises(RefusedError, match=message):
        refuse(jobs)
    assert outcome(job) is None
    finish(job)
    with pytest.raises(RefusedError, match=message):
        outcome(job)


def test_a_run_that_ends_while_the_table_is_written(
    jobs: list[SweepRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older table is not the one that stays."""
    refuse(jobs)
    texts = []

    def write(path: Path, text: str) -> None:
        if not texts:
            finish(jobs[1])
        texts.append(text)
        path.write_text(text)

    monkeypatch.setattr("alexnet_jax.sweep.jobs.replace_text", write)
    rows = write_table(jobs, {"paper": "", "half": "+1.7 / +1.2"}, 2, Workdir(str(tmp_path)))
    assert (rows[1].seeds, len(texts)) == ((5,), 4)
    assert json.loads((tmp_path / "table.json").read_text())[1]["top1_errors"] == [0.1]
    with pytest.raises(RefusedError, match="nowhere holds no sweep"):
        write_table(jobs, {}, 2, Workdir(str(tmp_path / "nowhere")))


@pytest.fixture
def ends(jobs: list[SweepRun], monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """The ends of the runs, one after the other: an exit code and the last words."""
    ends: list[tuple[int, str]] = []

    def end(job: SweepRun, *_: object) -> tuple[int, str]:
        code, words = ends.pop(0)
        if code == 0:
            finish(job)
        return code, words

    monkeypatch.setattr(sweep, "_run", end)
    refuse(jobs)  # makes their folders
    return ends


def test_what_failed_is_tried_again(
    jobs: list[SweepRun], ends: list[tuple[int, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The others go on; what diverged has an outcome, and is not repeated."""
    ends += [
        (0, ""),
        (REFUSED, "ValueError: so"),
        (DIVERGED, "too fast"),
        (-9, "ended by SIGKILL"),
        (0, ""),
        (0, ""),
    ]
    assert run_all(jobs) == 2
    said = capsys.readouterr().out
    assert "2/6  half, seed 5" in said and "FAILED, ValueError: so" in said
    assert (jobs[2].workdir.path / "diverged.txt").read_text() == "too fast\n"
    assert [outcome(job) is not None for job in jobs] == [True, False, True, False, True, True]
    ends += [(0, ""), (0, "")]
    assert run_all(jobs) == 0
    assert not ends


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        (CONFIG, ConfigError, "half, seed 5: so it is"),
        (PREEMPTED, Interrupted, "stopped, 1 of 6 runs are done"),
    ],
)
def test_what_ends_a_sweep(
    code: int, error: type[Exception], message: str, jobs: list[SweepRun], ends: list[tuple[int, str]]
) -> None:
    ends += [(0, ""), (code, "so it is")]
    with pytest.raises(error, match=message):
        run_all(jobs)


@pytest.fixture
def printing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script that runs in place of training."""
    path = tmp_path / "instead"
    monkeypatch.setattr(sweep.sys, "executable", str(path))
    return path


def write_script(path: Path, *script: str) -> None:
    path.write_text("\n".join(["#!/bin/sh", *script]) + "\n")
    path.chmod(0o755)


def test_what_a_run_prints(jobs: list[SweepRun], printing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of it is kept, call after call; the last of it says why a run has no figures."""
    refuse(jobs)
    write_script(printing, "echo $1 $2 $4", "echo 'error: too late' >&2", "echo", "exit 4")
    for _ in range(2):
        assert run_all(jobs[:1]) == 1
        assert "FAILED, too late" in capsys.readouterr().out
    text = (jobs[0].workdir.path / "log.txt").read_text()
    flags = f"{QUICK}:paper --config.seed=5 --distributed=off --workdir={jobs[0].workdir.path}"
    assert text == 2 * (
        f"$ {printing} -m alexnet_jax.main {flags}\n-m alexnet_jax.main --config.seed=5\nerror: too late\n\n"
    )
    for number, name in ((9, "Killed"), (37, "Real-time signal")):
        write_script(printing, "echo half-way", f"kill -{number} $$")
        assert run_all(jobs[:1]) == 1
        words = capsys.readouterr().out
        assert f"FAILED, ended by {name}" in words and f"(signal {number}) after: half-way" in words
    write_script(printing)
    assert run_all(jobs[:1]) == 1
    assert "FAILED, it printed nothing" in capsys.readouterr().out


def test_a_run_that_is_under_way(jobs: list[SweepRun], printing: Path) -> None:
    """A run of a job that was killed goes on alone, and must stay alone."""
    refuse(jobs)
    write_script(printing, "sleep 600 &", "echo $!")
    assert run_all(jobs[:1]) == 1
    with pytest.raises(RefusedError, match="paper, seed 5: another process is at it"):
        run_all(jobs)
    os.kill(int((jobs[0].workdir.path / "log.txt").read_text().split()[-1]), signal.SIGKILL)
