"""Networks of GroCo's claim: a small encoder, and the paper's projector."""

from itertools import pairwise

import torch
from torch import nn

__all__ = ["convnet", "projection"]


def convnet(channels: int) -> nn.Sequential:
    """Four strided convolutions to 128 features."""
    widths = (channels, 16, 32, 64, 128)
    blocks = [
        nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
        for a, b in pairwise(widths)
    ]
    network = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def projection(width: int, hidden: int, out: int) -> nn.Sequential:
    """The paper's projector: three layers, normalised at the end; its output bias would be undone there."""
    return nn.Sequential(
        *(nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()),
        *(nn.Linear(hidden, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()),
        *(nn.Linear(hidden, out, bias=False), nn.BatchNorm1d(out, affine=False)),
    )
