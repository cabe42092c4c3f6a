"""The mean picture and the covariance of pixel colours, summed exactly in one pass (sections 2 and 4.1)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class PixelStatistics:
    """Of a training split: mean picture f32[S, S, 3] and RGB covariance f64[3, 3], both on 0-255."""

    mean: np.ndarray
    covariance: np.ndarray

    def save(self, path: Path) -> None:
        np.savez(path, mean=self.mean, covariance=self.covariance)

    @classmethod
    def load(cls, path: Path) -> "PixelStatistics":
        with np.load(path, allow_pickle=False) as file:
            return cls(file["mean"], file["covariance"])


class PixelSums:
    """Running sums; float64 holds them exactly up to 2^53, which is more than all of ImageNet at 256 px."""

    def __init__(self, size: int):
        self.pictures = 0
        self.total = np.zeros((size, size, 3))
        self.products = np.zeros((3, 3))

    def add(self, pictures: np.ndarray) -> None:
        """Takes in u8[B, S, S, 3]."""
        values = pictures.astype(np.float64)
        colours = values.reshape(-1, 3)
        self.pictures += len(pictures)
        self.total += values.sum(axis=0)
        self.products += colours.T @ colours

    def statistics(self) -> PixelStatistics:
        mean = self.total / self.pictures
        colour = mean.mean(axis=(0, 1))
        pixels = self.pictures * mean.shape[0] * mean.shape[1]
        covariance = self.products / pixels - np.outer(colour, colour)
        return PixelStatistics(mean.astype(np.float32), covariance)
