"""The paper's figures, from runs: python -m alexnet_jax.figures figure1 --relu=runs/relu --tanh=runs/tanh"""

import difflib
from pathlib import Path

from absl import flags

from alexnet_jax.errors import ConfigError
from alexnet_jax.run import processes
from alexnet_jax.run.figure1 import figure1
from alexnet_jax.run.workdir import Workdir, to_json

RELU = flags.DEFINE_string("relu", None, "figure1: the folder of the run with ReLU.")
TANH = flags.DEFINE_string("tanh", None, "figure1: the folder of the run with tanh.")
OUT = flags.DEFINE_string("out", None, "The file; figures/NAME.png in the run's folder if not given.")

FORMATS = (".png", ".pdf", ".svg")


def main(name: str = "") -> None:
    """Draws the figure of a name."""
    if name not in FIGURES:
        near = difflib.get_close_matches(name, FIGURES, n=1, cutoff=0)[0]
        wrong = f"there is no figure {name!r}" if name else "the first word says which figure"
        raise ConfigError(f"{wrong}; the nearest name is {near}, of {', '.join(FIGURES)}")
    FIGURES[name]()


def draw_figure1() -> None:
    """Training error with ReLU and with tanh, and the steps that each takes to 25 %."""
    relu, tanh = (Workdir(processes.require(flag, f"runs/{flag.name}")) for flag in (RELU, TANH))
    print(to_json(figure1(relu, tanh, target(relu, "figure1"))))


def target(workdir: Workdir, name: str) -> Path:
    """Where a figure is written."""
    path = Path(OUT.value).expanduser() if OUT.value else workdir.path / "figures" / f"{name}.png"
    if path.suffix not in FORMATS:
        raise ConfigError(f"--out={path} must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    return path


FIGURES = {"figure1": draw_figure1}


if __name__ == "__main__":
    processes.run(main, words=1)
