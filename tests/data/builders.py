"""Toyshapes as a genuine TFDS data set, for what reads such sets."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tensorflow_datasets as tfds

from alexnet_jax.data.toyshapes import TEN, TWENTY_ONE, make_example

Examples = Iterator[tuple[str, dict[str, Any]]]


@dataclass(eq=False)
class ToyshapesConfig(tfds.core.BuilderConfig):
    """A data set of another size, such as a small one for tests; its name tells it apart on disk."""

    train_size: int = TEN.sizes["train"]
    validation_size: int = TEN.sizes["validation"]


class Toyshapes(tfds.core.GeneratorBasedBuilder):
    """Ten classes of coloured shapes and textures; without a config, the full set."""

    VERSION = tfds.core.Version("1.0.0")
    SUBJECTS = TEN

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=self.SUBJECTS.class_names),
            "file_name": tfds.features.Text(),
        }
        together = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, description=type(self).__doc__, features=together)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Examples]:
        del dl_manager  # nothing is downloaded
        sizes, chosen = self.SUBJECTS.sizes, self.builder_config
        if chosen:
            sizes = {"train": chosen.train_size, "validation": chosen.validation_size}
        return {split: self._generate_examples(split, size) for split, size in sizes.items()}

    def _generate_examples(self, split: str, size: int) -> Examples:
        for index in range(size):
            example = make_example(split, index, self.SUBJECTS)
            yield example["file_name"], example


class Toyshapes21(Toyshapes):
    """Seven shapes in three fillings each."""

    SUBJECTS = TWENTY_ONE
