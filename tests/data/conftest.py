"""A few toyshapes, generated and packed once."""

from pathlib import Path

import pytest
import tensorflow_datasets as tfds
from etils import epath

from alexnet_jax.data import packing
from alexnet_jax.data.batches import PackedSet
from alexnet_jax.data.packing import Plan, Work, make_plan, pack
from alexnet_jax.data.shards import Form
from alexnet_jax.data.sources import TfdsSource, prepare
from alexnet_jax.data.toyshapes import Toyshapes, ToyshapesConfig

SIZE = 72
RAW = Form(SIZE, "raw")


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> tfds.core.DatasetBuilder:
    """Forty pictures to train and twenty to validate."""
    config = ToyshapesConfig("few", train_size=40, validation_size=20)
    return prepare(Toyshapes(data_dir=str(tmp_path_factory.mktemp("tfds")), config=config))


def plan(builder: tfds.core.DatasetBuilder, path: Path, form: Form = RAW) -> Plan:
    return make_plan(TfdsSource("few", builder), form, epath.Path(path))


@pytest.fixture(scope="session")
def packed_path(few: tfds.core.DatasetBuilder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packed") / f"toyshapes-{SIZE}"
    pack(plan(few, path), Work())
    return path


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
