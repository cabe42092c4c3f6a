"""All that a run prints, from the first line to the last, as a shell sees it."""

import re
from pathlib import Path

import pytest

from tests.commands.running import NARROW, here, lines, train

FLAGS = ("--config.train.log_every=2", "--config.evaluation.every_epochs=0.016")
FIGURES = r"loss \d\.\d{4}  top-1 error \d+\.\d %  top-5 error \d+\.\d %"
AROUND = r"rate 0\.01  \d+ images/s  epoch 0\.0\d  waiting \d+ %  memory \d+\.\d\d GB  (\?|\d\d:\d\d) left"
WHEN = r"  in \d\d:\d\d"

RESUMED = r"""
hosts  1 process .*
chosen 1 x 2 .*
data   toyshapes, 10 classes, 4000 train, 1000 validation pictures, 72 x 72, crops of 64
net    2 towers, the first axis of every array; float32
       layer +output +kernel +parameters +spec +reads +then
       conv1  15 x 15 x 8  2 x 11 x 11 x 3 x 4 +2,912  P\('tower'\)  pictures    relu, LRN, pool to 7 x 7
       conv2 .*
       conv3 .* all towers  relu
       conv4 .*
       conv5 .*
       fc6 .*
       fc7 .*
       fc8 +10  2 x 32 x 5 +330  P\('tower'\)  all towers
mesh   1 x 2 \(data x tower\), cpu
       rows 0-15        \[cpu:0 tower 0\] \[cpu:1 tower 1\]
params 9,618 parameters; 4,809 on a device, 19,236 bytes, and as many of velocity
rate   0\.01, divided by 10 at epochs 13, 16; momentum 0\.9, decay 0\.0005
run    resuming at step 4 of 6, batch 16, 0\.024 epochs of 250 steps, jax .*
files  WORKDIR: metrics\.jsonl, checkpoints/ at least every 500 steps: the newest 3, and the best
       tensorboard --logdir=WORKDIR
config train\.steps=6, until now 4
      6/6  train       FIGURES  AROUND
      6/6  validation  FIGURES
      6/6  final       FIGURES
""".strip()
RESULTS = r"""
done   validation FIGURESWHEN
result    step  top-1 error  top-5 error    loss  views
this run +STEP +\d+\.\d %  +\d+\.\d %  \d\.\d{4}      1
(its best .*
)?expected     - +3\.2 %            -       -      1
compare   top-1 error \d\d\.\d points above what was expected
next   python -m alexnet_jax\.evaluate --workdir=WORKDIR --views=10 +# .*
       python -m alexnet_jax\.evaluate --workdir=WORKDIR +# .*
       python -m alexnet_jax\.figures --workdir=WORKDIR +# .*
       python -m alexnet_jax\.predict --workdir=WORKDIR PICTURE +# .*
       python -m alexnet_jax\.plan --config=configs/quickstart\.py --topology=h100:1x2 +# .*
""".strip()


def check(out: str, wanted: str, workdir: Path, step: int) -> None:
    words = {"FIGURES": FIGURES, "AROUND": AROUND, "WHEN": WHEN, "STEP": str(step)}
    for name, pattern in (words | {"WORKDIR": re.escape(str(workdir))}).items():
        wanted = wanted.replace(name, pattern)
    assert re.fullmatch(wanted + "\n", out), out


@pytest.mark.slow
def test_quietly_and_then_aloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results alone, though its data had to be made; then everything of a run that goes on.

    No library says a word.
    """
    for name in ("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS"):  # which conftest.py has set
        monkeypatch.delenv(name)
    workdir, data_dir = tmp_path / "run", tmp_path / "data"
    out, err = train(workdir, "--quiet", *FLAGS, "--config.train.steps=4", data_dir=data_dir)
    check(out, RESULTS, workdir, 4)
    assert err == ""
    assert [line["split"] for line in lines(workdir)] == ["train", "train", "validation", "final"]
    out, err = train(workdir, *FLAGS, "--config.train.steps=6", data_dir=data_dir)
    check(out, f"{RESUMED}\n{RESULTS}", workdir, 6)
    assert err == ""
    flags = ("--config=configs/quickstart.py", f"--workdir={workdir}", *NARROW, *FLAGS)
    out, err = here("main", *flags, "--quiet", "--config.train.steps=6", data_dir=data_dir)
    assert re.fullmatch(rf"already complete: step 6, validation {FIGURES}\n", out)
    assert err == ""
