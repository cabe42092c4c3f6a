"""The paper's figures, and more, of a run: python -m alexnet_jax.figures --workdir=runs/quickstart

All of them, or those that are named, as in figures kernels curves --workdir=runs/quickstart. Figure 1 is of
two runs: figures figure1 --relu=runs/relu --tanh=runs/tanh
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from alexnet_jax import arguments, cli
from alexnet_jax.errors import ConfigError, RefusedError
from alexnet_jax.figures.answers import answers
from alexnet_jax.figures.augmentation import augmentations, colour_noise
from alexnet_jax.figures.confusion import confusion
from alexnet_jax.figures.curves import curves
from alexnet_jax.figures.figure1 import figure1
from alexnet_jax.figures.functions import functions
from alexnet_jax.figures.kernels import kernels
from alexnet_jax.figures.maps import maps
from alexnet_jax.figures.meshes import mesh
from alexnet_jax.figures.neighbours import neighbours
from alexnet_jax.figures.style import save
from alexnet_jax.figures.towers import towers
from alexnet_jax.sharding.mesh import open_mesh
from alexnet_jax.storage.files import to_json
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.text import nearest
from alexnet_jax.trained.opened import TrainedRun, load_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a run.")
STEP = flags.DEFINE_integer("step", None, "The checkpoint; the newest if not given.")
MESH = flags.DEFINE_string("mesh", None, "Data x tower, as in 1x2; the config's if not given.")
ROW = flags.DEFINE_integer("row", 0, "The validation picture of figures of one picture.", lower_bound=0)
RELU = flags.DEFINE_string("relu", None, "figure1: the folder of the run with ReLU.")
TANH = flags.DEFINE_string("tanh", None, "figure1: the folder of the run with tanh.")
OUT = flags.DEFINE_string(
    "out", None, "The file of one figure; figures/NAME.png in the run's folder if not given."
)

FORMATS = (".png", ".pdf", ".svg")
OF_TWO = "figure1"
FIGURES: dict[str, Callable[[TrainedRun], "Figure"]] = {
    "towers": towers,
    "mesh": mesh,
    "kernels": kernels,
    "curves": curves,
    "answers": answers,
    "neighbours": neighbours,
    "maps": lambda opened: maps(opened, ROW.value),
    "confusion": confusion,
    "functions": functions,
    "augmentations": lambda opened: augmentations(opened, ROW.value),
    "colours": lambda opened: colour_noise(opened, ROW.value),
}
LINES = ("curves", "towers", "mesh", "functions")  # also written as drawings


def main(*names: str) -> None:
    """Draws the figures of these names."""
    for name in names:
        if name not in (*FIGURES, OF_TWO):
            near, known = nearest(name, (*FIGURES, OF_TWO)), ", ".join((*FIGURES, OF_TWO))
            raise ConfigError(f"there is no figure {name!r}; the nearest name is {near}, of {known}")
    if OUT.value and len(names) != 1:
        raise ConfigError(f"--out={OUT.value} is for one figure; name it, as in figures curves --out=FILE")
    if OUT.value and Path(OUT.value).suffix not in FORMATS:
        raise ConfigError(f"--out={OUT.value} must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    if OF_TWO in names:
        draw_figure1()
    if left := [name for name in names or FIGURES if name != OF_TWO]:
        draw(left)


def draw_figure1() -> None:
    """Training error with ReLU and with tanh, and the steps that each takes to 25 %."""
    relu, tanh = (Workdir(arguments.require(flag, f"runs/{flag.name}")) for flag in (RELU, TANH))
    print(to_json(figure1(relu, tanh, *targets(relu, OF_TWO))))


def draw(names: Sequence[str]) -> None:
    """Figures of one run; what cannot be drawn keeps none of the others from it."""
    workdir = Workdir(arguments.require(WORKDIR, "runs/quickstart"))
    config = arguments.with_flags(workdir.read_config(), mesh=MESH.value)
    opened, refused = load_run(workdir, STEP.value, open_mesh(config.mesh, config.network.towers)), None
    for name in names:
        try:
            figure = FIGURES[name](opened)
            for path in targets(workdir, name):
                save(figure, path)
        except (ConfigError, RefusedError) as error:
            if len(names) == 1:
                raise
            print(f"{name:<14} not drawn: {error}", file=sys.stderr, flush=True)
            refused = error
        else:
            words = " ".join(figure.get_suptitle().split())
            print(f"{name:<14} {cli.shorter(path)}\n{'':<14} {words}", flush=True)
    if refused:
        raise refused


def targets(workdir: Workdir, name: str) -> tuple[Path, ...]:
    """The files of a figure."""
    if OUT.value:
        return (Path(OUT.value).expanduser(),)
    folder = workdir.path / "figures"
    return tuple(folder / f"{name}{end}" for end in ((".svg", ".png") if name in LINES else (".png",)))


if __name__ == "__main__":
    cli.run(main, words=None, pipeable=True)
