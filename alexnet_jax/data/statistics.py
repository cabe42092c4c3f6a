"""The mean picture and the covariance of pixel colours, summed exactly in one pass (sections 2 and 4.1)."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from etils import epath

EXACT = 256  # products of so many pairs of bytes add up to less than 2^24, which float32 holds exactly


@dataclass(frozen=True)
class PixelStatistics:
    """Of a training split: mean picture f32[S, S, 3] and RGB covariance f64[3, 3], both on 0-255."""

    mean: np.ndarray
    covariance: np.ndarray

    def components(self) -> tuple[np.ndarray, np.ndarray]:
        """The covariance's eigenvalues, the largest last, and its eigenvectors in columns."""
        values, vectors = np.linalg.eigh(self.covariance)
        return np.maximum(values, 0), vectors

    def save(self, path: Path) -> None:
        values, vectors = self.components()
        with path.open("wb") as file:
            np.savez(
                file, mean=self.mean, covariance=self.covariance, eigenvalues=values, eigenvectors=vectors
            )

    @classmethod
    def load(cls, path: epath.Path) -> "PixelStatistics":
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return cls(arrays["mean"], arrays["covariance"])


class PixelSums:
    """Running sums in integers, so that they are the same in whatever parts they were summed."""

    def __init__(self, size: int):
        self.pictures = 0
        self.total = np.zeros((size, size, 3), np.int64)
        self.products = np.zeros((3, 3), np.int64)

    def add(self, picture: np.ndarray) -> None:
        """Takes in u8[S, S, 3]."""
        self.pictures += 1
        self.total += picture
        exact = np.float32 if len(picture) <= EXACT else np.float64
        planes = [plane.astype(exact) for plane in cv2.split(picture)]
        for i, j in itertools.combinations_with_replacement(range(3), 2):
            product = int(np.vecdot(planes[i], planes[j]).sum(dtype=np.float64))
            self.products[i, j] += product
            if i != j:
                self.products[j, i] += product

    def merge(self, other: "PixelSums") -> None:
        """Takes in another part's sums."""
        self.pictures += other.pictures
        self.total += other.total
        self.products += other.products

    def statistics(self) -> PixelStatistics:
        mean = self.total / self.pictures
        colour = mean.mean(axis=(0, 1))
        pixels = self.pictures * mean.shape[0] * mean.shape[1]
        covariance = self.products / pixels - np.outer(colour, colour)
        return PixelStatistics(mean.astype(np.float32), covariance)
