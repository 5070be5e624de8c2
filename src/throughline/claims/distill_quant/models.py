"""Teachers and students of the distill-quant claim: one hidden layer, behind strided convolutions for images."""

from itertools import pairwise

from torch import nn

__all__ = ["convnet", "mlp"]


def mlp(inputs: int, hidden: int, classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def convnet(shape: tuple[int, ...], widths: tuple[int, ...], classes: int) -> nn.Module:
    """Strided convolutions, 5 × 5 and then 3 × 3, and a hidden layer; without convolutions, that alone."""
    channels, height, width = shape
    if len(widths) == 1:
        return mlp(channels * height * width, widths[0], classes)
    layers: list[nn.Module] = []
    for place, (a, b) in enumerate(pairwise((channels, *widths[:-1]))):
        kernel = 3 if place else 5
        convolution = nn.Conv2d(a, b, kernel, stride=2, padding=kernel // 2, bias=False)
        layers += [convolution, nn.BatchNorm2d(b), nn.ReLU()]
        height, width = -(-height // 2), -(-width // 2)
    return nn.Sequential(*layers, mlp(b * height * width, widths[-1], classes))
