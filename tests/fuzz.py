"""Gives what people can get wrong or have damaged to what reads it: taken, or refused in a line.

    python -m tests.fuzz overrides --seconds=600
    python -m tests.fuzz pictures --only=0-1234

Each trial is drawn from the seed and its number: `--only=SEED-NUMBER` does it again. What is neither taken
nor refused is a crash, among it what takes more than 8 GiB or 60 seconds; after one that the process does not
survive the next run says which it was.
"""

import argparse
import collections
import contextlib
import copy
import dataclasses
import io
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

# As the commands do, before anything imports TensorFlow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from alexnet_jax.arguments import read_words
from alexnet_jax.config.fields import DataConfig
from alexnet_jax.data.any_picture import read_any
from alexnet_jax.data.batches import EvaluationOrder, PackedSet, open_packed, read_batches
from alexnet_jax.data.packing import pack_toyshapes
from alexnet_jax.data.pictures import read_square
from alexnet_jax.data.squares import BadPicture
from alexnet_jax.data.toyshapes import SUBJECTS
from alexnet_jax.errors import UserError
from alexnet_jax.learning.schedule import make_pace
from alexnet_jax.learning.state import state_shapes
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.training.alarm import StallAlarm
from configs import imagenet
from configs.variants import VARIANTS
from tests.data.images import encoded, huge_header, photo

SECONDS, BYTES = 60, 8 << 30  # that a trial may take
NASTY = ("", "0", "-1", "1", "2", "3", "7", "1e400", "nan", "-inf", "None", "True", "()", "(0,)", "[1, 2]")
NASTY += ("{}", "1e-30", "1e30", "0.5", "-0.0", "1" * 40, "2147483648", "9223372036854775808", "x", "'", '"')
NASTY += ("(", "é", "../..", "~nobody/x", "/dev/null", "\x00", "a,b", "=", "--", "drops", "before", "none")
NASTY += ("tanh", "\n", "$X")
JSON = ("", 0, -1, 1, 3, 2**70, -(2**70), 0.5, 1e308, float("nan"), float("inf"), None, True, [], {}, [[]])
JSON += ("x", "é", "\ud800", [1, 2], {"a": {}}, "None", "../..", "\x00", [1e9] * 3)


class Overdue(BaseException):
    """Nothing that any code catches."""


class Overrides:
    """Flags of a config, some of them right."""

    def __init__(self, folder: Path):
        del folder
        self.names = [name for name, _ in leaves(imagenet.get_config().to_dict())]
        self.values = [value for _, value in leaves(imagenet.get_config().to_dict())]

    def __call__(self, rng: random.Random) -> Iterator[str]:
        variants = [*VARIANTS, "", "no_such"]
        file = f"configs/{rng.choice(['imagenet', 'quickstart', 'cifar10', 'four_layers'])}.py"
        chosen = ",".join(rng.choices(variants, k=rng.choice((0, 0, 1, 2))))
        words = [f"--config={file}{':' * bool(chosen)}{chosen}"]
        for _ in range(rng.randint(1, 4)):
            name = rng.choice(self.names)
            value = rng.choice((rng.choice(NASTY), str(rng.choice(self.values))))
            if rng.random() < 0.1:
                name = mutated(rng, name.encode()).decode(errors="replace")
            words.append(f"--config.{name}={value}")
        yield repr(words)
        config = read_words(words)
        state_shapes(config)
        config.train.length(1000)
        make_pace(config, rng.uniform(0, 100), 100.0, [rng.random() for _ in range(rng.randint(0, 20))])


class Json:
    """A run's `config.json` and `metrics.jsonl`."""

    def __init__(self, folder: Path):
        self.path = folder
        self.config = read_words(["--config=configs/quickstart.py"])
        workdir = Workdir(str(folder))
        workdir.write_config(self.config)
        (workdir.checkpoints / "7").mkdir(parents=True)
        self.text = workdir.config_path.read_text()
        line = {"split": "train", "loss": 0.5, "top1_error": 0.25, "top5_error": None}
        self.lines = "".join(json.dumps(line | {"step": n}) + "\n" for n in range(9))

    def __call__(self, rng: random.Random) -> Iterator[str]:
        workdir = Workdir(str(self.path))
        text = damaged_json(rng, self.text)
        log = mutated(rng, self.lines.encode()) if rng.random() < 0.3 else self.lines.encode()
        yield repr((text, log))
        workdir.config_path.write_bytes(text)
        workdir.metrics_path.write_bytes(log)
        workdir.check_same(self.config)
        workdir.check_metrics(self.config)
        state_shapes(workdir.read_config())
        StallAlarm(self.config, workdir.metrics())
        workdir.forget_after(5, 5)


class Pictures:
    """Encoded pictures of every kind."""

    def __init__(self, folder: Path):
        del folder
        sizes = ((64, 64), (40, 90), (200, 130), (9, 8))
        photos = [photo(seed, *size) for seed, size in enumerate(sizes)]
        kinds = [("JPEG", mode, {}) for mode in ("RGB", "L", "CMYK")]
        kinds += [("JPEG", "RGB", {"progressive": True}), ("JPEG", "RGB", {"subsampling": 0})]
        kinds += [("PNG", mode, {}) for mode in ("RGB", "L", "RGBA", "LA", "P", "1", "I;16")]
        kinds += [("GIF", "P", {}), ("BMP", "RGB", {}), ("WEBP", "RGB", {}), ("TIFF", "I;16", {})]
        kinds += [("TIFF", mode, {"compression": way}) for mode in ("RGB", "CMYK") for way in ("raw", "jpeg")]
        others = ("AVIF", "DDS", "ICO", "ICNS", "JPEG2000", "PCX", "PPM", "QOI", "SGI", "TGA")
        kinds += [(kind, "RGB", {}) for kind in others]
        self.pictures = [huge_header(), b""]
        for kind, mode, options in kinds:
            for picture in photos:
                if mode == "I;16":
                    self.pictures.append(encoded(picture[..., 0].astype(np.uint16) * 257, kind, mode))
                else:
                    self.pictures.append(encoded(picture, kind, mode, **options))

    def __call__(self, rng: random.Random) -> Iterator[str]:
        content = rng.choice(self.pictures)
        for _ in range(rng.choice((0, 1, 1, 1, 2, 5))):
            content = mutated(rng, content)
        yield content.hex()
        size, refused = rng.choice((8, 32, 64, 100)), []
        for read in (lambda: read_square(content, size)[0], lambda: read_any(io.BytesIO(content), size)):
            try:
                found = read()
            except BadPicture as error:
                refused.append(error)
            else:
                assert found.shape == (size, size, 3), found.shape
                assert found.dtype == np.uint8, found.dtype
        if len(refused) == 2:
            raise refused[0 if str(refused[1]).strip() else 1]


class Index:
    """The index of a packed set, and its rows."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.whole = folder / "whole"
        few = dataclasses.replace(SUBJECTS["toyshapes"], sizes={"train": 200, "validation": 100})
        with mock.patch.dict(SUBJECTS, toyshapes=few):
            for encoding in ("raw", "jpeg"):
                pack_toyshapes(self.config(self.whole, encoding))

    def config(self, folder: Path, encoding: str) -> DataConfig:
        return DataConfig("toyshapes", 24, encoding, str(folder), 4, 1, 0, trace=False)

    def __call__(self, rng: random.Random) -> Iterator[str]:
        encoding, copied = rng.choice(("raw", "jpeg")), self.folder / "copy"
        shutil.rmtree(copied, ignore_errors=True)
        shutil.copytree(self.whole, copied)
        [found] = copied.glob(f"packed/*{encoding}")
        files = sorted(path for path in found.rglob("*") if path.is_file())
        file = rng.choice([file for file in files if file.suffix in (".json", ".npz")] + [rng.choice(files)])
        content = file.read_bytes()
        content = damaged_json(rng, content.decode()) if file.suffix == ".json" else mutated(rng, content)
        yield f"{file.name}: {content[:10000]!r}"
        file.write_bytes(content)
        # As a run begins, but that it would draw toyshapes anew where they are not packed.
        packed = open_packed(config := self.config(copied, encoding), 10)
        self.read(packed, config, rng)

    def read(self, packed: PackedSet, config: DataConfig, rng: random.Random) -> None:
        split = rng.choice(("train", "validation"))
        order = EvaluationOrder(packed.images(split), 50)
        batches = read_batches(packed, split, order, range(order.batches), np.arange(50), config)
        with contextlib.closing(batches):
            for images, labels, _ in batches:
                assert images.shape == (50, 24, 24, 3)
                assert labels.shape == (50,)


Target = Callable[[random.Random], Iterator[str]]
TARGETS: dict[str, Callable[[Path], Target]] = {
    "overrides": Overrides,
    "json": Json,
    "pictures": Pictures,
    "index": Index,
}


def leaves(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in values.items():
        found += leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return found


def mutated(rng: random.Random, content: bytes) -> bytes:
    """Applies one change that happens to files, or that somebody makes."""
    data, at = bytearray(content), rng.randrange(len(content) + 1)
    length = min(rng.choice((1, 2, 4, 16, 256)), len(data) - at)
    match rng.randrange(7):
        case 0 if data:  # a bit
            data[at % len(data)] ^= 1 << rng.randrange(8)
        case 1:  # noise
            data[at : at + length] = rng.randbytes(length)
        case 2:  # a hole
            del data[at : at + length]
        case 3:  # cut short
            del data[at:]
        case 4:  # something twice
            data[at:at] = data[at : at + length] * rng.choice((1, 1, 9))
        case 5:  # numbers at their limits
            data[at : at + length] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * length
        case 6:  # something from elsewhere
            start = rng.randrange(len(data) + 1)
            data[at : at + length] = data[start : start + length]
    return bytes(data)


def damaged_json(rng: random.Random, text: str) -> bytes:
    """Other bytes, or another value at some place."""
    if rng.random() < 0.4:
        return mutated(rng, text.encode())
    values = copy.deepcopy(json.loads(text))
    for _ in range(rng.randint(1, 3)):
        inside = values
        while isinstance(inside, dict | list) and len(inside):
            key = rng.choice(list(inside) if isinstance(inside, dict) else range(len(inside)))
            if not isinstance(inside[key], dict | list) or rng.random() < 0.2:
                match rng.randrange(8):
                    case 0:
                        del inside[key]
                    case 1 if isinstance(inside, dict):
                        inside[rng.choice(("x", "", "é", "step"))] = inside.pop(key)
                    case 2:
                        for _ in range(5000):
                            inside[key] = [inside[key]]
                    case _:
                        inside[key] = copy.deepcopy(rng.choice(JSON))
                break
            inside = inside[key]
    try:
        return json.dumps(values).encode(errors="surrogatepass")
    except RecursionError:
        return b"[" * 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="SEED-NUMBER of a trial")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    note = Path(tempfile.gettempdir()) / f"fuzz-{arguments.target}.trial"
    if note.exists():
        print(f"the last run did not survive --only={note.read_text()}")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        target = TARGETS[arguments.target](Path(folder))
        if arguments.only:
            outcome, *crashes = filter(None, trial(target, arguments.only))
            print(outcome, *crashes, sep="\n")
        else:
            crashes = fuzz(target, arguments.seed, arguments.seconds, tell=note.write_text)
    note.unlink(missing_ok=True)
    sys.exit(bool(crashes))


def fuzz(
    target: Target,
    seed: int,
    seconds: float = math.inf,
    trials: float = math.inf,
    tell: Callable[[str], Any] = lambda _: None,
) -> list[str]:
    """The first crash of each kind, each printed as it is found."""
    outcomes, crashes = collections.Counter(), []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and outcomes.total() < trials:
        tell(name := f"{seed}-{outcomes.total()}")
        outcome, detail = trial(target, name)
        outcomes[outcome] += 1
        if detail and outcomes[outcome] == 1:
            crashes.append(f"--only={name}: {outcome}\n{detail}")
            print(crashes[-1], flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common()))
    return crashes


def trial(target: Target, name: str) -> tuple[str, str]:
    """`attempt` with what is drawn from a name."""
    return attempt(target, random.Random(name))


def attempt(target: Target, rng: random.Random) -> tuple[str, str]:
    """Whether it is taken or refused, or else what was raised, and what is known of that."""
    steps = target(rng)
    given = next(steps)
    signal.signal(signal.SIGALRM, overdue)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # of numbers that do not fit
            next(steps, None)
    except (UserError, BadPicture) as error:
        return ("refused", "") if str(error).strip() else ("refused without a word", given)
    except (Exception, Overdue) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        kind = f"{type(error).__name__} in {where.filename.rpartition('/')[2]}:{where.lineno}"
        return kind, f"{traceback.format_exc()[-1500:]}{given[:2000]}"
    finally:
        signal.alarm(0)
    return "taken", ""


def overdue(number: int, frame: object) -> None:
    del number, frame
    raise Overdue(f"not done after {SECONDS} s")


if __name__ == "__main__":
    main()
