"""Where pictures come from: TFDS builders, generated where they can be."""

import contextlib
import os
from pathlib import Path

import tensorflow_datasets as tfds

from alexnet_jax.data.toyshapes import Toyshapes
from alexnet_jax.errors import RefusedError


def open_source(name: str, data_dir: Path) -> tfds.core.DatasetBuilder:
    """The builder of a data set with labelled pictures, its files in place."""
    if name != "toyshapes":
        raise RefusedError(
            f"there is no packed data set {name!r} below {data_dir}, and this version can pack toyshapes only"
        )
    return prepare(Toyshapes(data_dir=str(data_dir / "tfds")))


def prepare(builder: tfds.core.DatasetBuilder) -> tfds.core.DatasetBuilder:
    """Generates a builder's files, without the paragraphs that TFDS prints about it."""
    tfds.disable_progress_bar()
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        builder.download_and_prepare()
    return builder
