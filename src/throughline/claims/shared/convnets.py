"""Plain networks for small pictures, which a claim trains from nothing."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

__all__ = ["convnet", "grouped_convnet", "mlp", "strided"]


def mlp(inputs: int, hidden: int, classes: int) -> nn.Sequential:
    """One hidden layer, of pictures or rows."""
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def strided(channels: Sequence[int], first: int = 3) -> nn.Sequential:
    """Convolutions that halve the sides, 3 × 3 but for the first, with batch norm.

    Args:
        channels: of the pictures, and behind each convolution.
        first: side of the first convolution's kernel.
    """
    kernels = (first, *(3,) * (len(channels) - 2))
    return nn.Sequential(
        *(
            nn.Sequential(nn.Conv2d(a, b, k, stride=2, padding=k // 2, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for (a, b), k in zip(pairwise(channels), kernels, strict=True)
        )
    )


def convnet(shape: tuple[int, ...], widths: tuple[int, ...], classes: int) -> nn.Module:
    """Strided convolutions, 5 × 5 and then 3 × 3, and a hidden layer; without convolutions, that alone."""
    channels, height, width = shape
    if len(widths) == 1:
        return mlp(channels * height * width, widths[0], classes)
    for _ in widths[:-1]:
        height, width = -(-height // 2), -(-width // 2)
    return nn.Sequential(
        *strided((channels, *widths[:-1]), first=5), mlp(widths[-2] * height * width, widths[-1], classes)
    )


def grouped_convnet(
    shape: tuple[int, ...],
    groups: tuple[tuple[int, ...], ...],
    hidden: tuple[int, ...],
    classes: int,
    *,
    kernel: int,
    pool_last: bool,
) -> nn.Sequential:
    """Groups of convolutions with a pooling after each, or after each but the last, and hidden layers.

    Args:
        shape: of a picture, ``(c, h, w)``.
        groups: widths of the convolutions of each group.
        hidden: widths of the hidden layers, one at least.
        classes: outputs.
        kernel: side of every kernel, odd.
        pool_last: whether the last group is pooled too.
    """
    channels, height, width = shape
    layers: list[nn.Module] = []
    for place, group in enumerate(groups):
        for out in group:
            layers += [nn.Conv2d(channels, out, kernel, padding=kernel // 2), nn.BatchNorm2d(out), nn.ReLU()]
            channels = out
        if pool_last or place < len(groups) - 1:
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
    layers.append(nn.Flatten())
    for a, b in pairwise((channels * height * width, *hidden)):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], classes))
