"""A copy of what a run needs of its data set, for machines without it: `pictures.npz`."""

import io
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.config.fields import AugmentConfig, Config
from alexnet_jax.data.statistics import PixelStatistics
from alexnet_jax.errors import RefusedError
from alexnet_jax.learning.augment import Pixels, pixels
from alexnet_jax.sharding.mesh import REPLICATED, shard
from alexnet_jax.storage.files import replace_bytes
from alexnet_jax.storage.workdir import Workdir


@dataclass(frozen=True)
class DatasetFacts:
    """The pixel statistics of the training pictures, and the names of the classes."""

    statistics: PixelStatistics
    class_names: tuple[str, ...]


def save_facts(workdir: Workdir, facts: DatasetFacts) -> None:
    """Writes `pictures.npz`."""
    if workdir.writes:
        file, names = io.BytesIO(), np.array(facts.class_names, np.str_)
        np.savez(file, class_names=names, **vars(facts.statistics))
        replace_bytes(workdir.pictures_path, file.getvalue())


def saved_facts(workdir: Workdir, config: Config) -> DatasetFacts | None:
    """Reads `pictures.npz`; None for a run of an older version, which has none, or no eigenvectors."""
    path, side = workdir.pictures_path, config.data.size
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = dict(arrays)
        if "eigenvectors" not in found:
            return None
        names, statistics = found.pop("class_names"), PixelStatistics(**found)
        fits = statistics.mean.shape == (side, side, 3) and statistics.fits
        fits = fits and names.shape == (config.network.classes,) and names.dtype.kind == "U"
    except Exception as error:  # NumPy and zip files each have their own
        raise RefusedError(_damaged(workdir, type(error).__name__)) from error
    if not fits:
        raise RefusedError(_damaged(workdir, "it does not fit config.json"))
    return DatasetFacts(statistics, tuple(names.tolist()))


def _damaged(workdir: Workdir, why: str) -> str:
    return f"{workdir.pictures_path} is damaged ({why}); delete it, and the packed data set is read instead"


def open_facts(workdir: Workdir, config: Config) -> DatasetFacts:
    """The facts that a run has kept, or else those of its data set."""
    if facts := saved_facts(workdir, config):
        return facts
    # TensorFlow takes seconds to import: only where it is needed.
    from alexnet_jax.data.batches import open_packed

    packed = open_packed(config.data, config.network.classes)
    return DatasetFacts(packed.statistics, tuple(packed.class_names))


def device_pixels(config: AugmentConfig, mesh: Mesh, statistics: PixelStatistics) -> Pixels:
    """The statistics of the training pictures, on every device."""
    found = pixels(statistics.mean, statistics.eigenvalues, statistics.eigenvectors, config)
    return jax.device_put(found, shard(mesh, REPLICATED))
