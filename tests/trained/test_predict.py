"""Predictions of people's own pictures: the same as of packed ones."""

import contextlib
import dataclasses
import io
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image

from alexnet_jax.data.batches import PackedSet, open_packed
from alexnet_jax.data.packing import Work, pack, plan_packing
from alexnet_jax.data.shards import PackedForm
from alexnet_jax.data.sources import FolderSource
from alexnet_jax.data.squares import centre_square
from alexnet_jax.errors import CONFIG, PASSED_OVER, REFUSED, RefusedError
from alexnet_jax.learning.augment import Pixels
from alexnet_jax.learning.prediction import make_prediction_step
from alexnet_jax.learning.state import State, init_state
from alexnet_jax.learning.step import no_totals
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.storage.checkpoint import Checkpoints, Retention
from alexnet_jax.storage.facts import DatasetFacts, device_pixels, open_facts, save_facts, saved_facts
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.trained import predictor
from alexnet_jax.trained.predictor import batch_size
from alexnet_jax.training.opening import restore
from configs import quickstart
from tests.commands.running import command, here, narrow
from tests.data.images import encoded, huge_header, photo

WORDS = {  # of what cannot be used, in the order in which a folder is read
    "bomb.jpg": "400000000 pixels, more than 134217728",
    "cut.jpg": "damaged or cut short",
    "empty.png": "empty",
    "text.jpg": "no picture of a kind that can be read",
}
STEP = 5
NONE = "no file in it is called *.jpg or the like"


@pytest.fixture(scope="module")
def workdir(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    """A run that has learnt nothing, but tells pictures apart, if not by what is on them."""
    workdir, recipe, mesh = (
        Workdir(str(tmp_path_factory.mktemp("run"))),
        quickstart.get_config(),
        make_mesh(1, 1),
    )
    for name, layer in recipe.network.items():
        if name.startswith(("conv", "fc")):
            layer.deviation = 0.1 if name.startswith("conv") else 0.4
    config = narrow(recipe, data_dir, STEP)
    workdir.write_config(config)
    packed = open_packed(config.data, 10)
    save_facts(workdir, DatasetFacts(packed.statistics, tuple(packed.class_names)))
    with contextlib.closing(Checkpoints(workdir.checkpoints, Retention(1))) as checkpoints:
        checkpoints.save(STEP, (init_state(config, mesh), no_totals(mesh)), {})
        checkpoints.wait()
    return workdir


def save(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of folders: what `prepare` can pack, what only `predict` reads, and what nobody can."""
    path, picture = tmp_path_factory.mktemp("own"), photo(1, 90, 120)
    exif, dark = Image.Exif(), Image.new("P", (120, 90))
    exif[0x0112] = 6
    files = {
        "both/train/colour/1.jpg": encoded(photo(2, 300, 200)),
        "both/train/grey/1.jpg": encoded(picture, mode="L"),
        "both/train/inks/1.jpg": encoded(photo(4, 90, 120), mode="CMYK"),
        "both/train/palette/1.png": encoded(photo(5, 90, 120), "PNG", "P"),
        "both/train/small/1.jpeg": encoded(photo(6, 40, 50)),
        "both/val/colour/1.jpg": encoded(photo(7, 300, 200)),
        "more/frames.gif": encoded(picture, "GIF", "P", save_all=True, append_images=[dark]),
        "more/glass.png": encoded(picture, "PNG", "RGBA"),
        "more/odd notes.jpg": encoded(picture, exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(range(200))),
        "more/pixel.png": encoded(picture[:1, :1], "PNG"),
        "more/turned.JPG": encoded(np.rot90(picture), exif=exif),
        "more/two\nlines\udcff.bmp": encoded(picture, "BMP"),
        "more/notes.txt": b"no picture, and not called one",
        "more/.hidden.jpg": b"",
        "none/bomb.jpg": huge_header(),
        "none/cut.jpg": encoded(picture)[:3000],
        "none/empty.png": b"",
        "none/text.jpg": b"<html>404</html>",
    }
    for name, content in files.items():
        save(path / name, content)
    large = io.BytesIO()
    Image.new("RGB", (8000, 6000), "teal").save(large, "JPEG")
    save(path / "more" / "large.jpg", large.getvalue())
    (path / "nothing").mkdir()
    return path


def predict(workdir: Workdir, *words: object, code: int = 0) -> tuple[str, str]:
    """Predicts without the data set; its output can be encoded, whatever files are called."""
    flags = (f"--workdir={workdir.path}", *map(str, words))
    out, err = here("predict", *flags, data_dir=Path("/nowhere"), code=code)
    assert (out + err).encode()
    return out, err


def probabilities(workdir: Workdir, pictures: np.ndarray, views: int = 1) -> np.ndarray:
    """The probabilities of squares u8[B, 72, 72, 3], by the network's own step."""
    config, mesh = workdir.read_config(), make_mesh(1, 2)
    packed = open_packed(config.data, 10)
    with contextlib.closing(Checkpoints(workdir.checkpoints)) as checkpoints:
        state = restore(checkpoints, None, config, mesh)
    looks = device_pixels(config.augment, mesh, packed.statistics)
    step = make_prediction_step(config, mesh, views)
    return np.exp(jax.device_get(step(state, looks, pictures)))


def check(line: dict, wanted: np.ndarray, names: tuple[str, ...]) -> None:
    """The five likeliest of what is wanted, named."""
    found = line["classes"]
    assert len(found) == 5
    likeliest = np.sort(wanted)[::-1][:5]
    np.testing.assert_allclose([one["probability"] for one in found], likeliest, rtol=1e-5)
    for one in found:
        assert wanted[one["class"]] == pytest.approx(one["probability"], rel=1e-5)
        assert one["name"] == names[one["class"]]


@pytest.fixture(scope="module")
def packed(own: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The squares that `prepare` makes of the pictures in `both/train`, by their class folders."""
    target = epath.Path(tmp_path_factory.mktemp("packed") / "own")
    pack(plan_packing(FolderSource("own", epath.Path(own / "both")), PackedForm(72, "raw"), target), Work())
    whole = PackedSet(target)
    images, labels = whole.table("train")(np.arange(whole.images("train")))
    return {whole.class_names[label]: image for image, label in zip(images, labels, strict=True)}


@pytest.mark.filterwarnings(r"ignore::UserWarning:PIL\.")  # by the command itself, where pytest is not
def test_every_kind_of_file(workdir: Workdir, own: Path, packed: dict[str, np.ndarray]) -> None:
    """One call: packed pictures have the same probabilities, the others are seen right, the rest is named."""
    train, more, none = own / "both" / "train", own / "more", own / "none"
    missing = own / "link.jpg"
    missing.symlink_to("nowhere.jpg")
    out, err = predict(workdir, train, missing, more, none, "--json", code=PASSED_OVER)
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["picture"] for line in lines] == [
        *(str(path) for path in sorted(train.glob("*/*"))),
        str(missing),
        *(str(path) for path in sorted(more.iterdir()) if path.name not in ("notes.txt", ".hidden.jpg")),
        *(str(none / name) for name in WORDS),
    ]
    by_name = {line["picture"]: line for line in lines}
    names = tuple(open_packed(workdir.read_config().data, 10).class_names)
    wanted = probabilities(workdir, np.stack(list(packed.values())))
    assert np.ptp(wanted, axis=0).max() > 0.1  # each picture has probabilities of its own
    for folder, row in zip(packed, wanted, strict=True):
        [path] = (train / folder).iterdir()
        check(by_name[str(path)], row, names)
    same = {name: by_name[str(more / name)]["classes"] for name in ("glass.png", "two\nlines\udcff.bmp")}
    assert same["glass.png"] == same["two\nlines\udcff.bmp"]
    assert {len(line["classes"]) for line in lines if "classes" in line} == {5}
    refused = {str(missing): "No such file or directory", **{str(none / name): WORDS[name] for name in WORDS}}
    assert {line["picture"]: line["error"] for line in lines if "error" in line} == refused
    assert err.splitlines() == [f"passed over: {path}: {why}" for path, why in refused.items()]


@pytest.mark.slow
def test_for_people(workdir: Workdir, own: Path) -> None:
    """A picture's name on one line, then a line for each of five classes; views, mesh and step as asked."""
    flags = ("--views=10", "--mesh=2x1", f"--step={STEP}")
    out, err = predict(workdir, own / "more" / "two\nlines\udcff.bmp", *flags)
    name, *lines = out.splitlines()
    assert (name, err) == (f"{own}/more/two\\nlines\\udcff.bmp", "")
    names = open_packed(workdir.read_config().data, 10).class_names
    with Image.open(own / "more" / "two\nlines\udcff.bmp") as image:
        square = centre_square(np.asarray(image), 72)
    [wanted] = probabilities(workdir, square[None], views=10)
    order = np.argsort(-wanted)[:5]
    assert lines == [f"{100 * wanted[i]:7.2f} %  {names[i]}" for i in order]


def test_a_hundred_pictures_are_four_calls(
    workdir: Workdir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One compiled program sees 25 at a time."""
    seen = []

    def counted(*given: Any) -> Callable[..., jax.Array]:
        step = make_prediction_step(*given)

        def call(state: State, pixels: Pixels, pictures: jax.Array) -> jax.Array:
            seen.append((id(step), pictures.shape))
            return step(state, pixels, pictures)

        return call

    monkeypatch.setattr(predictor, "make_prediction_step", counted)
    for number in range(100):
        save(tmp_path / "many" / f"{number:02}.jpg", encoded(photo(number % 10, 90, 120)))
    out, _ = predict(workdir, tmp_path / "many", "--mesh=1x2")
    assert out.count(".jpg") == 100
    assert len(seen) == 4 and len({*seen}) == 1 and seen[0][1] == (25, 72, 72, 3)


@pytest.mark.slow
def test_nobody_listens(workdir: Workdir, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends without a word as it first prints, as after `| head`. Until then nothing brings TensorFlow."""
    save(tmp_path / "tensorflow.py", b"import os\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    pictures = [str(own / "more" / name) for name in ("odd notes.jpg", "glass.png")]
    process = command("predict", f"--workdir={workdir.path}", *pictures, data_dir=Path("/nowhere"))
    process.stdout.close()
    assert (process.stderr.read(), process.wait(300)) == ("", -signal.SIGPIPE)


def test_one_line_and_a_code(workdir: Workdir, own: Path) -> None:
    for words, code, line in (
        ("", CONFIG, "error: no picture is named; try PICTURE.jpg, or a folder"),
        ("{own}/more {own}/other.png", REFUSED, "error: there is no picture or folder {own}/other.png"),
        ("{own}/nothing", REFUSED, f"error: there is no picture in the folder {{own}}/nothing: {NONE}"),
        ("{own}/none/cut.jpg", PASSED_OVER, "passed over: {own}/none/cut.jpg: damaged or cut short"),
        ("{own}/more --step=7", REFUSED, f"error: {{run}} has no checkpoint of step 7; it has {STEP}"),
    ):
        there = {"own": own, "run": workdir.path}
        out, err = predict(workdir, *words.format(**there).split(), code=code)
        assert (out, err) == ("", f"{line.format(**there)}\n"), words


def test_what_a_run_keeps_of_its_data_set(workdir: Workdir, tmp_path: Path) -> None:
    """By its first process alone; without it the packed set is asked, and says the same."""
    config = workdir.read_config()
    kept = saved_facts(workdir, config)
    shutil.copy(workdir.config_path, tmp_path)
    old = Workdir(str(tmp_path))
    assert saved_facts(old, config) is None
    asked = open_facts(old, config)
    assert asked.class_names == kept.class_names
    for one, other in zip(*(dataclasses.astuple(facts.statistics) for facts in (asked, kept)), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    save_facts(Workdir(str(tmp_path), process=1), kept)
    assert not old.pictures_path.exists()


def test_what_is_kept_is_damaged(workdir: Workdir, tmp_path: Path) -> None:
    config, whole = workdir.read_config(), workdir.pictures_path.read_bytes()
    copy = Workdir(str(tmp_path))
    kept = saved_facts(workdir, config)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (b"", whole[: len(whole) // 2], bytes(flipped), b"text"):
        copy.pictures_path.write_bytes(content)
        with pytest.raises(RefusedError, match=r"pictures.npz is damaged \(.*\); delete it, and the"):
            saved_facts(copy, config)
    save_facts(copy, DatasetFacts(kept.statistics, kept.class_names[:9]))
    with pytest.raises(RefusedError, match=r"is damaged \(it does not fit config.json\)"):
        saved_facts(copy, config)


def test_batches_are_alike(workdir: Workdir) -> None:
    """Batches of at most 32 pictures, with no more spare rows than the mesh needs."""
    config = workdir.read_config()
    sizes = {(1, 1): 1, (1, 32): 32, (1, 33): 17, (1, 100): 25, (4, 1): 4, (4, 100): 28}
    for (data, pictures), wanted in sizes.items():
        assert batch_size(pictures, config.evaluation, make_mesh(data, 1)) == wanted
