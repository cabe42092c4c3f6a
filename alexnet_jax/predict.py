"""Classifies pictures: python -m alexnet_jax.predict --workdir=runs/quickstart PICTURE_OR_FOLDER ...

With --features=fc7 --output=x.npz the activations of a stage are written instead, or, with
--split=validation, of a split of the run's data set: vectors for nearest neighbours, or to learn from.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags

from alexnet_jax import arguments, cli
from alexnet_jax.data.packed import refuse_early
from alexnet_jax.data.picture_files import FileBatch, find_pictures, read_files
from alexnet_jax.errors import PASSED_OVER, ConfigError
from alexnet_jax.sharding.mesh import open_mesh
from alexnet_jax.storage.files import to_json
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.trained.features import check_stage, write_files, write_split
from alexnet_jax.trained.opened import TrainedRun, load_run
from alexnet_jax.trained.predictor import Answer, Predictor, batch_size

WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the run.")
STEP = flags.DEFINE_integer("step", None, "The checkpoint; the newest if not given.")
VIEWS = flags.DEFINE_integer(
    "views", None, "1: the centre; 9: a 3 x 3 grid; 10: corners, centre and their mirror images."
)
MESH = flags.DEFINE_string("mesh", None, "Data x tower, as in 1x2; the config's if not given.")
JSON = flags.DEFINE_bool("json", False, "A line of JSON for each picture, and nothing else.")


SPLITS = ("train", "validation")
FEATURES = flags.DEFINE_string("features", None, "Write activations of this stage, as fc7, not classes.")
OUTPUT = flags.DEFINE_string("output", None, "The .npz file that features are written to.")
SPLIT = flags.DEFINE_string("split", None, "Features of a split, such as validation, and not of files.")


def main(*words: str) -> None:
    """Prints the likeliest classes of each picture, or writes features."""
    workdir = Workdir(arguments.require(WORKDIR, "runs/quickstart"))
    _check_flags(words)
    config = arguments.with_flags(workdir.read_config(), views=VIEWS.value, mesh=MESH.value)
    if FEATURES.value:
        check_stage(config.network, FEATURES.value)
    paths = find_pictures(words)
    if SPLIT.value or not workdir.pictures_path.exists():
        refuse_early(config.data, config.network.classes)
    mesh = open_mesh(config.mesh, config.network.towers)
    if SPLIT.value:
        say_features(write_split(load_run(workdir, STEP.value, mesh), FEATURES.value, SPLIT.value, _output()))
        return
    with read_files(paths, config.data.size, batch_size(len(paths), config.evaluation, mesh)) as batches:
        opened = load_run(workdir, STEP.value, mesh, config)
        if FEATURES.value:
            bad = write(opened, batches, len(paths))
        else:
            bad = show(Predictor(opened).answers(batches))
    if bad:
        sys.exit(PASSED_OVER)


def _check_flags(words: Sequence[str]) -> None:
    """Refuses what does not go together."""
    if FEATURES.value is None:
        for flag in (OUTPUT, SPLIT):
            if flag.value:
                raise ConfigError(f"--{flag.name}={flag.value} needs --features, as in --features=fc7")
    else:
        arguments.require(OUTPUT, f"{FEATURES.value}.npz")
        if not OUTPUT.value.endswith(".npz"):
            raise ConfigError(f"--output={OUTPUT.value} must end in .npz")
        if JSON.value or VIEWS.value is not None:
            raise ConfigError("--json and --views are of answers: leave them out with --features")
        if SPLIT.value and SPLIT.value not in SPLITS:
            raise ConfigError(f"there is no split {SPLIT.value!r}; there is {', '.join(SPLITS)}")
        if SPLIT.value and words:
            raise ConfigError(f"name pictures or --split={SPLIT.value}, not both")
    if not (words or SPLIT.value):
        raise ConfigError("no picture is named; try PICTURE.jpg, or a folder")


def _output() -> Path:
    return Path(OUTPUT.value).expanduser()


def say_features(shape: Sequence[int]) -> None:
    print(f"{_output()}: features f32[{', '.join(map(str, shape))}] of {FEATURES.value}")


def write(opened: TrainedRun, batches: Iterator[FileBatch], most: int) -> int:
    """Writes features of files; how many could not be read."""
    shape, bad = write_files(opened, FEATURES.value, batches, most, _output())
    for path, error in bad:
        pass_over(path, error)
    say_features(shape)
    return len(bad)


def show(answers: Iterator[Answer]) -> int:
    """Prints them as they come; how many files could not be read."""
    bad = 0
    for answer in answers:
        name = printable(str(answer.path))
        if answer.error:
            bad += 1
            pass_over(answer.path, answer.error)
        if JSON.value:
            print(to_json(answer.as_dict()), flush=True)
        elif not answer.error:
            lines = (f"{100 * chance:7.2f} %  {label}" for _, label, chance in answer.classes)
            print(name, *lines, sep="\n", flush=True)
    return bad


def pass_over(path: Path, error: str) -> None:
    print(f"passed over: {printable(str(path))}: {error}", file=sys.stderr, flush=True)


def printable(name: str) -> str:
    """A file name on one line, whatever is in it."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


if __name__ == "__main__":
    cli.run(main, words=None, pipeable=True)
