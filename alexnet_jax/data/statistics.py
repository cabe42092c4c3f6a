"""The mean picture and the covariance of pixel colours, summed exactly in one pass (sections 2 and 4.1)."""

import itertools
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
from etils import epath


@dataclass(frozen=True)
class PixelStatistics:
    """Pixel statistics of a training split, on 0-255.

    Eigenvectors are stored, as their signs differ between LAPACKs.
    """

    mean: np.ndarray  # f32[S, S, 3]
    covariance: np.ndarray  # f64[3, 3], of RGB
    eigenvalues: np.ndarray  # f64[3], the largest last
    eigenvectors: np.ndarray  # f64[3, 3], in columns

    @property
    def fits(self) -> bool:
        """Whether the arrays can be what they are said to be."""
        side = len(self.mean)
        arrays = tuple(vars(self).values())
        shapes = ((side, side, 3), (3, 3), (3,), (3, 3))
        return tuple(x.shape for x in arrays) == shapes and all(np.isfinite(x).all() for x in arrays)

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **vars(self))

    @classmethod
    def load(cls, path: epath.Path) -> "PixelStatistics":
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return cls(**{field.name: arrays[field.name] for field in fields(cls)})


class PixelSums:
    """Running sums in integers, so that they are the same in whatever parts they were summed."""

    def __init__(self, size: int):
        self.pictures = 0
        self.total = np.zeros((size, size, 3), np.uint32)  # holds 2^24 pictures, and is quick to add to
        self.products = np.zeros((3, 3), np.int64)

    def add(self, picture: np.ndarray) -> None:
        """Takes in u8[S, S, 3]."""
        self.pictures += 1
        self.total += picture
        planes = cv2.split(picture)
        squares = [cv2.norm(plane, cv2.NORM_L2SQR) for plane in planes]
        for i, j in itertools.combinations_with_replacement(range(3), 2):
            # 2xy = x^2 + y^2 - (x - y)^2. OpenCV sums bytes exactly, then takes a root and its square.
            apart = cv2.norm(planes[i], planes[j], cv2.NORM_L2SQR)
            self.products[[i, j], [j, i]] += round((squares[i] + squares[j] - apart) / 2)

    def merge(self, other: "PixelSums") -> None:
        """Takes in another part's sums."""
        self.pictures += other.pictures
        self.total = self.total.astype(np.int64) + other.total
        self.products += other.products

    def statistics(self) -> PixelStatistics:
        mean = self.total / self.pictures
        colour = mean.mean(axis=(0, 1))
        pixels = self.pictures * mean.shape[0] * mean.shape[1]
        covariance = self.products / pixels - np.outer(colour, colour)
        values, vectors = np.linalg.eigh(covariance)
        return PixelStatistics(mean.astype(np.float32), covariance, np.maximum(values, 0), vectors)
