"""A few toyshapes, generated and packed once."""

from pathlib import Path

import pytest
import tensorflow_datasets as tfds
from etils import epath

from alexnet_jax.data import packing
from alexnet_jax.data.batches import PackedSet
from alexnet_jax.data.packing import Packing, Work, pack, plan_packing
from alexnet_jax.data.shards import PackedForm
from alexnet_jax.data.sources import TfdsSource

SIZE = 72
RAW = PackedForm(SIZE, "raw")


def plan(builder: tfds.core.DatasetBuilder, path: Path, form: PackedForm = RAW) -> Packing:
    return plan_packing(TfdsSource("few", builder), form, epath.Path(path))


@pytest.fixture(scope="session")
def packed(packed_path: Path) -> PackedSet:
    return PackedSet(epath.Path(packed_path))


@pytest.fixture(scope="session")
def in_shards(few: tfds.core.DatasetBuilder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures in three shards to train and two to validate."""
    path = tmp_path_factory.mktemp("shards") / f"toyshapes-{SIZE}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "SHARD_BYTES", 40 * SIZE * SIZE * 3 // 3)
        pack(plan(few, path), Work())
    return path
