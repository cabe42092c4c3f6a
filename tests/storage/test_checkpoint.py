"""Damaged checkpoints: noticed, named, passed over."""

import contextlib
import errno
import resource
import shutil
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from alexnet_jax.errors import RefusedError
from alexnet_jax.storage.checkpoint import Checkpoints, Retention

SIZE = 4096


def tree(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    return {"kernel": rng.normal(size=(2, SIZE)).astype(np.float32), "step": np.int32(step)}


def abstract() -> dict[str, jax.ShapeDtypeStruct]:
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
        for name, x in jax.device_put(tree(0)).items()
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Steps 10, 20 and 30."""
    path = tmp_path_factory.mktemp("saved") / "checkpoints"
    with contextlib.closing(Checkpoints(path, Retention(3))) as checkpoints:
        for step in (10, 20, 30):
            checkpoints.save(step, jax.device_put(tree(step)), {"validation_errors": [1 / step]})
    return path


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "checkpoints"))


def resume(path: Path, *, write: bool = True) -> int | None:
    """The step that is restored; what comes is what was saved."""
    with contextlib.closing(Checkpoints(path, Retention(3) if write else None)) as checkpoints:
        found = checkpoints.newest(abstract())
    if found is None:
        return None
    wanted = tree(found.step)
    assert all(np.asarray(found.arrays[name]).tobytes() == x.tobytes() for name, x in wanted.items())
    assert found.progress == {"validation_errors": [1 / found.step]}
    return found.step


def test_the_newest(copy: Path) -> None:
    assert resume(copy) == 30


def test_nothing_yet(tmp_path: Path) -> None:
    assert resume(tmp_path) is None


def files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file())


@pytest.mark.parametrize("damage", ["cut", "emptied", "deleted"])
def test_every_file(damage: str, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without it, or a part of it, a checkpoint is passed over, unless the file says nothing that counts."""
    for number, name in enumerate(file.relative_to(saved) for file in files(saved / "30")):
        path = Path(shutil.copytree(saved, tmp_path / str(number)))
        file = path / name
        if damage == "deleted":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2 if damage == "cut" else 0])
        step = resume(path)
        said = capsys.readouterr().err
        assert (step, said.startswith(f"passed over: {path / '30'} is damaged (")) in (
            (30, False),
            (20, True),
        )
        assert len(said.splitlines()) == (step == 20)
        assert (path / "damaged-30").exists() == (step == 20)


@pytest.mark.slow
def test_a_flipped_bit(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """100 of them, in files drawn by their size and one by one: never other numbers than were saved."""
    rng, names = np.random.default_rng(0), [file.relative_to(saved) for file in files(saved / "30")]
    largest = max(names, key=lambda name: (saved / name).stat().st_size)
    chosen = [names[i % len(names)] for i in range(60)] + [largest] * 40
    noticed = 0
    for number, name in enumerate(chosen):
        path = Path(shutil.copytree(saved, tmp_path / str(number)))
        content = bytearray((path / name).read_bytes())
        if content:
            bit = int(rng.integers(8 * len(content)))
            content[bit // 8] ^= 1 << bit % 8
        (path / name).write_bytes(content)
        step = resume(path)
        said = capsys.readouterr().err
        assert (step, "passed over" in said) in ((30, False), (20, True)), (name, said)
        noticed += step == 20
    assert noticed >= 40


@pytest.mark.parametrize("content", [[], ["arrays"], ["arrays", "progress", "digests"]], ids=str)
def test_strays(content: list[str], copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that looks like a newer checkpoint is put aside, and what is saved next is the newest."""
    for name in content:
        (copy / "99" / name).mkdir(parents=True)
    (copy / "99").mkdir(exist_ok=True)
    assert resume(copy) == 30
    assert f"passed over: {copy / '99'} is damaged (" in capsys.readouterr().err
    with contextlib.closing(Checkpoints(copy, Retention(3))) as checkpoints:
        checkpoints.save(40, jax.device_put(tree(40)), {"validation_errors": [1 / 40]})
    assert sorted(path.name for path in copy.iterdir()) == ["20", "30", "40", "damaged-99"]
    assert resume(copy) == 40


def test_a_reader_changes_nothing(copy: Path) -> None:
    (copy / "99").mkdir()
    assert resume(copy, write=False) == 30
    assert sorted(path.name for path in copy.iterdir()) == ["10", "20", "30", "99"]


def empty(path: Path) -> None:
    for file in files(path):
        file.write_bytes(b"")


def test_none_is_whole(copy: Path) -> None:
    """Beginning anew is the user's decision."""
    empty(copy)
    with pytest.raises(RefusedError, match=r"no checkpoint in .* is whole, of 3; move the folder away"):
        resume(copy)


def test_one_that_is_asked_for(copy: Path) -> None:
    empty(copy / "20" / "progress")
    with contextlib.closing(Checkpoints(copy)) as checkpoints:
        assert checkpoints.choose(10, abstract()).step == 10
        with pytest.raises(RefusedError, match=r"/20 is damaged \("):
            checkpoints.choose(20, abstract())
        with pytest.raises(RefusedError, match=r"has no checkpoint of step 7; it has 10, 20, 30"):
            checkpoints.choose(7, abstract())


def test_what_is_kept(tmp_path: Path) -> None:
    """The two newest, the first of every 10 from 10 on, and the best; opened anew in between."""
    for part in (range(3, 25, 3), range(27, 49, 3)):
        kept = Retention(2, lambda step: step // 10)
        kept.errors = {9: 0.3, 15: 0.1, 18: 0.1, 16: 0.0}
        with contextlib.closing(Checkpoints(tmp_path, kept)) as checkpoints:
            for step in part:
                checkpoints.save(step, jax.device_put(tree(step)), {})
    found = sorted(int(path.name) for path in tmp_path.iterdir())
    assert found == [12, 15, 21, 30, 42, 45, 48]


def test_a_write_that_fails(tmp_path: Path) -> None:
    """It is named when it is waited for; the next one is written, and the one before is still there."""
    largest = resource.getrlimit(resource.RLIMIT_FSIZE)
    with contextlib.closing(Checkpoints(tmp_path, Retention(3))) as checkpoints:
        checkpoints.save(10, jax.device_put(tree(10)), {"validation_errors": [1 / 10]})
        checkpoints.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, largest[1]))
        try:
            with pytest.raises(RefusedError, match=r"step 20 could not be saved: .*(large|LARGE)"):
                checkpoints.save(20, jax.device_put(tree(20)), {})
                checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, largest)
        assert resume(tmp_path, write=False) == 10
        checkpoints.save(30, jax.device_put(tree(30)), {"validation_errors": [1 / 30]})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "30"]
    assert resume(tmp_path) == 30


def test_what_may_pass(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that the system does not let be read is no damage: nothing is put aside."""
    read = Path.open

    def refuse(path: Path, *given: Any, **named: Any) -> IO:
        if path.name == "_METADATA":
            raise OSError(errno.EIO, "Input/output error")
        return read(path, *given, **named)

    def restore(*_: object, **__: object) -> None:
        raise ValueError("some library's words")

    with monkeypatch.context() as patches:
        patches.setattr(ocp.Checkpointer, "restore", restore)
        patches.setattr(Path, "open", refuse)
        words = r"/30 cannot be read now \(Input/output error\); the same command tries it again"
        with pytest.raises(RefusedError, match=words):
            resume(copy)
    assert resume(copy) == 30
