"""Figure 1 on generated pictures: python -m benchmarks.figure1 --folder=runs/figure1

Toyshapes in CIFAR-10's files go the way of CIFAR-10: TFDS's own builder, `prepare`, and the nets `:relu` and
`:tanh` of configs/four_layers.py. As in the paper each net's rate is tuned by itself: both train at several,
and the one that comes to 25 % training error in the fewest steps stands for it. A second call goes on where
the first has ended.
"""

import argparse
import math
import os
import subprocess
import sys
from pathlib import Path

# As the commands do, before anything imports TensorFlow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from alexnet_jax.errors import COMPLETE, DIVERGED
from alexnet_jax.figures.figure1 import Curve, read_curve
from alexnet_jax.figures.style import SPELT
from alexnet_jax.storage.workdir import Workdir
from benchmarks.generated_cifar10 import place_archive

TRAIN, TEST = 8000, 500  # pictures
RATES = {"relu": (0.0005, 0.001, 0.002), "tanh": (0.002, 0.004, 0.008)}
STEPS = {"relu": 800, "tanh": 2000}
BATCH, LOG_EVERY = 32, 50


def main() -> None:
    """Makes the data, trains, prints a table, and draws the best of each net."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--folder", type=Path, default=Path("runs/figure1"))
    folder = arguments.parse_args().folder.absolute()
    pack(folder)
    curves = {net: [train(folder, net, rate) for rate in rates] for net, rates in RATES.items()}
    best = {net: min(tried, key=steps_to_target) for net, tried in curves.items()}
    print(f"\n{'net':<6}{'rate':<8}{'steps to 25 %':>13}{'least error':>13}")
    for net, tried in curves.items():
        for curve in tried:
            least, chosen = 100 * min(curve.errors), "  the fastest" if curve is best[net] else ""
            print(f"{curve.name:<6}{curve.rate:<8g}{curve.crossing or '-':>13}{least:>11.1f} %{chosen}")
    flags = (f"--{net}={curve.path}" for net, curve in best.items())
    command("figures", "figure1", *flags, f"--out={folder / 'figure1.png'}")


def pack(folder: Path) -> None:
    """Generated pictures as CIFAR-10, in a data folder and a TFDS folder of their own."""
    if not (folder / "data" / "packed").exists():
        print(f"drawing and packing {TRAIN + TEST} pictures", flush=True)
        place_archive(folder / "tfds", TRAIN, TEST)
    places = (f"--tfds_dir={folder / 'tfds'}", f"--data_dir={folder / 'data'}")
    command("prepare", "--dataset=cifar10", "--size=32", *places, quiet=True)


def train(folder: Path, net: str, rate: float) -> Curve:
    """The curve of a net at a rate, trained where it is not complete."""
    workdir = Workdir(str(folder / f"{net}-{rate:g}"))
    if not workdir.final():
        print(f"training {SPELT[net]} at {rate:g}, {STEPS[net]} steps", flush=True)
        settings = {
            "data.dir": folder / "data",
            "schedule.learning_rate": rate,
            "train.batch_size": BATCH,
            "train.steps": STEPS[net],
            "train.log_every": LOG_EVERY,
            "evaluation.every_epochs": 1e6,  # at the end only
            "evaluation.batch_size": TEST,
            "checkpoint.every_steps": 500,
        }
        flags = (f"--config.{name}={value}" for name, value in settings.items())
        recipe = (f"--config=configs/four_layers.py:{net}", f"--workdir={workdir.path}")
        command("main", *recipe, *flags, quiet=True)
    return read_curve(workdir, net)


def steps_to_target(curve: Curve) -> float:
    return curve.crossing or math.inf


def command(module: str, *arguments: str, quiet: bool = False) -> None:
    """Runs python -m alexnet_jax.MODULE; a rate that is too high may end it, nothing else."""
    out = subprocess.DEVNULL if quiet else None
    code = subprocess.run([sys.executable, "-m", f"alexnet_jax.{module}", *arguments], stdout=out).returncode
    if code not in (COMPLETE, DIVERGED):
        sys.exit(code)


if __name__ == "__main__":
    main()
