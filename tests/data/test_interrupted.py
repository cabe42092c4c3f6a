"""Packing that is stopped, killed, or beaten by another host, at any moments: always the undisturbed set."""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet_jax.data import packing, shards
from alexnet_jax.data.packed import BAD_PICTURES, MARKER, STATISTICS, PackedFiles
from alexnet_jax.data.packing import JOB, Packing, Work, pack, plan_packing
from alexnet_jax.data.shards import Notes, PackedForm, Shard
from alexnet_jax.data.sources import FolderSource
from alexnet_jax.data.verifying import verify
from alexnet_jax.errors import Interrupted
from tests.data.images import encoded, photo

FORM = PackedForm(16, "raw")
MOST_BAD = 0.5


class Killed(BaseException):
    """Ends packing as kill -9 does: what was half written stays."""


# At what something can happen: at a picture, before or after some file takes its place, when notes are read.
ONCE = (JOB, STATISTICS, "README.md", MARKER)
KINDS = ("picture", "shard", "notes", "reading", BAD_PICTURES, *ONCE)


class Moments:
    """The moments of packing at which it could be stopped; at one of a kind something happens."""

    def __init__(self, kind: str, number: int, happens: Callable[[], bool]):
        self._kind, self._left, self._happens = kind, number, happens

    def at(self, kind: str) -> bool:
        self._left -= kind == self._kind
        if kind != self._kind or self._left != -1:
            return False
        return self._happens()

    @contextlib.contextmanager
    def replacing(self, path: epath.Path) -> Iterator[Path]:
        """Replaces as the real one, but a killed process cleans up nothing."""
        kind = path.name if path.name in KINDS else "notes" if path.suffix == ".npz" else "shard"
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        os.close(handle)
        local = Path(name)
        yield local
        self.at(kind)
        local.chmod(0o644)
        local.replace(path)
        self.at(kind)

    def notes(self, shard: Shard) -> Notes:
        self.at("reading")
        return NOTES(shard)

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(shards, "replacing", self.replacing)
        patch.setattr(packing, "replacing", self.replacing)
        patch.setattr(packing, "_notes", self.notes)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    """Ten pictures to train, of which one cannot be used, and five to validate."""
    root = tmp_path_factory.mktemp("folder")
    for split, count in (("train", 10), ("val", 5)):
        for i in range(count):
            path = root / split / "class" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(photo(i, 20, 24), "PNG"))
    (root / "train" / "class" / "3.png").write_bytes(b"")
    return FolderSource("few", epath.Path(root))


def whole_files(plan: Packing) -> dict[str, tuple[int, int]]:
    """Each as it is on the disk."""
    waiting = plan.waiting()
    found = {shard.file_name: Path(shard.path).stat() for shard in plan.shards if shard not in waiting}
    return {name: (file.st_ino, file.st_mtime_ns) for name, file in found.items()}


def disturb(plan: Packing, how: str, kind: str, number: int, host: tuple[int, int]) -> None:
    """Packs until something happens."""

    def happens() -> bool:
        if how == "killed":
            raise Killed
        if how == "beaten":
            with pytest.MonkeyPatch.context() as undisturbed:
                Moments("", 0, lambda: False).watch(undisturbed)
                pack(plan, Work(most_bad=MOST_BAD))
        return how == "stopped"

    moments, before, of = Moments(kind, number, happens), whole_files(plan), len(plan.shards)
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
        moments.watch(patch)
        try:
            pack(plan, Work(share=host, most_bad=MOST_BAD, asked=lambda: moments.at("picture")))
        except Interrupted as error:
            assert f"stopped, {of - len(plan.waiting())} of {of} files are packed; the same" in str(error)
    if not plan.whole():
        assert before.items() <= whole_files(plan).items()


NOTES = packing._notes
disturbances = st.tuples(
    st.sampled_from(["stopped", "killed", "beaten"]),
    st.sampled_from(KINDS),
    st.integers(0, 20),
    st.sampled_from([(0, 1), (0, 2), (1, 2), (2, 3)]),
).map(lambda drawn: (drawn[0], drawn[1], drawn[2] % 2 if drawn[1] in ONCE else drawn[2], drawn[3]))


@settings(max_examples=100)
@given(
    happened=st.lists(disturbances, max_size=4),
    pictures=st.sampled_from([1, 2, 4, 100]),
    hosts=st.permutations([0, 1, 2]) | st.just([0]),
)
def test_whatever_happens(
    source: FolderSource,
    happened: list[tuple[str, str, int, tuple[int, int]]],
    pictures: int,
    hosts: list[int],
) -> None:
    """In files of so many pictures, ended by one or by three hosts. Whole files are kept as they are."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "SHARD_BYTES", pictures * FORM.picture_bytes)
        disturbed, alone = (plan_packing(source, FORM, epath.Path(folder) / name) for name in ("one", "two"))
        for disturbance in happened:
            disturb(disturbed, *disturbance)
        early = disturbed.whole()
        for host in hosts:
            done = pack(disturbed, Work(share=(host, len(hosts)), most_bad=MOST_BAD))
            assert done == disturbed.whole()
        assert done
        assert pack(alone, Work(most_bad=MOST_BAD))
        check_same(disturbed, alone)
        if not early:  # who is killed after the last file leaves its notes
            left, wanted = (
                sorted(file.name for file in plan.target.iterdir()) for plan in (disturbed, alone)
            )
            assert left == wanted


def check_same(found: Packing, wanted: Packing) -> None:
    one, two = (json.loads((plan.target / MARKER).read_text()) for plan in (found, wanted))
    assert one == two
    verify(PackedFiles(found.target, one), processes=1)
    assert (found.target / BAD_PICTURES).read_text() == (wanted.target / BAD_PICTURES).read_text()
    for name, array in np.load(wanted.target / STATISTICS).items():
        np.testing.assert_array_equal(np.load(found.target / STATISTICS)[name], array)
