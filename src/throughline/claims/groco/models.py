"""Networks of GroCo's claim: a small encoder, and the paper's projector."""

import torch
from torch import nn

from throughline.claims.shared.convnets import strided

__all__ = ["encoder_of", "projection"]


def encoder_of(channels: int) -> nn.Sequential:
    """Four strided convolutions to 128 features."""
    network = nn.Sequential(*strided((channels, 16, 32, 64, 128)), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def projection(width: int, hidden: int, out: int) -> nn.Sequential:
    """The paper's projector: three layers, normalised at the end; its output bias would be undone there."""
    return nn.Sequential(
        *(nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()),
        *(nn.Linear(hidden, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()),
        *(nn.Linear(hidden, out, bias=False), nn.BatchNorm1d(out, affine=False)),
    )
