"""The same network in PyTorch, eager, on the same threads or the same GPU."""

import os
from collections.abc import Callable

import numpy as np
import torch
from torch import nn


def contender(batch: int, rate: float) -> tuple[Callable[[], None], Callable[[], None]]:
    """A training step and a forward pass, each returning when it is done."""
    torch.backends.cudnn.allow_tf32 = False  # float32, as the others
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rng = np.random.default_rng(0)
    images = torch.tensor(rng.normal(0, 60, (batch, 3, 224, 224)), dtype=torch.float32, device=device)
    labels = torch.tensor(rng.integers(0, 1000, batch), device=device)
    network = make_network().to(device)
    optimizer = torch.optim.SGD(network.parameters(), rate, momentum=0.9, weight_decay=0.0005)

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def train() -> None:
        network.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        wait()

    def forward() -> None:
        network.eval()
        with torch.inference_mode():
            network(images)
        wait()

    return train, forward


class TowerNorm(nn.Module):
    """Local response normalisation within each of two towers; PyTorch divides alpha by the window."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        images, maps, *size = x.shape
        return self.norm(x.reshape(2 * images, maps // 2, *size)).reshape(x.shape)


def make_network() -> nn.Sequential:
    network = nn.Sequential(
        nn.ZeroPad2d((0, 3, 0, 3)),
        *(nn.Conv2d(3, 96, 11, stride=4), nn.ReLU(), TowerNorm(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(), TowerNorm(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        nn.Flatten(),
        *(nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout()),
        *(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout()),
        nn.Linear(4096, 1000),
    )
    layers = [layer for layer in network if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer, bias in zip(layers, (0, 1, 0, 1, 1, 1, 1, 0), strict=True):
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.constant_(layer.bias, bias)
    return network
