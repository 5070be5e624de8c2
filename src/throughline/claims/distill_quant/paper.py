"""CIFAR-10 and CIFAR-100 for the distill-quant claim, and the paper's networks for them."""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from throughline.claims.distill_quant.config import Config
from throughline.claims.distill_quant.data import Task
from throughline.claims.shared.augmentation import shifted_and_mirrored
from throughline.claims.shared.datasets import pictures, torchvision_set

__all__ = ["load"]

TEACHER = ((76, 76), (126, 126), (148,) * 4), (1200, 1200), 3  # convolutions between poolings, hidden layers, kernel
STUDENTS = {  # of CIFAR-10, by millions of parameters
    "1.0": (((75,), (50, 50), (25,)), (500,), 5),
    "0.3": (((50,), (25, 25), (10,)), (400,), 5),
    "0.1": (((25,), (10, 10), (5,)), (300,), 5),
}
WIDE = {"teacher": (28, 10), "student": (22, 8)}  # depth and width factor of CIFAR-100's residual networks


def load(config: Config) -> Task:
    """The task of every seed: the data set's own two parts."""
    name = "CIFAR10" if config.dataset == "cifar10" else "CIFAR100"
    parts = [pictures(torchvision_set(name, config.root, train=train, download=True)) for train in (True, False)]
    (x, y), (test_x, test_y) = parts
    std, mean = torch.std_mean(x, (0, 2, 3), keepdim=True)
    x, test_x = ((pixels - mean) / std.clamp_min(1e-6) for pixels in (x, test_x))
    classes = 10 if config.dataset == "cifar10" else 100

    def network(role: Literal["teacher", "student"]) -> Callable[[], nn.Module]:
        if config.dataset == "cifar100":
            return lambda: WideResNet(*WIDE[role], classes).to(config.device)
        return lambda: deep_convnet(*(TEACHER if role == "teacher" else STUDENTS[config.millions])).to(config.device)

    return Task(x, y, test_x, test_y, network("teacher"), network("student"), shifted_and_mirrored)


def deep_convnet(groups: tuple[tuple[int, ...], ...], hidden: tuple[int, ...], kernel: int) -> nn.Sequential:
    """CIFAR-10: groups of convolutions with a pooling after each but the last of a student, and hidden layers."""
    layers: list[nn.Module] = []
    channels, side = 3, 32
    for place, group in enumerate(groups):
        for width in group:
            layers += [nn.Conv2d(channels, width, kernel, padding=kernel // 2), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        if kernel == 3 or place < len(groups) - 1:
            layers.append(nn.MaxPool2d(2))
            side //= 2
    layers.append(nn.Flatten())
    for a, b in pairwise((channels * side * side, *hidden)):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], 10))


class WideResNet(nn.Module):
    """A wide residual network for 32 × 32 images (Zagoruyko and Komodakis): depth 6 n + 4, three stages of n blocks."""

    def __init__(self, depth: int, factor: int, classes: int) -> None:
        super().__init__()
        widths = [16, 16 * factor, 32 * factor, 64 * factor]
        blocks: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1, bias=False)]
        for stage, (a, b) in enumerate(pairwise(widths)):
            for block in range((depth - 4) // 6):
                blocks.append(_Block(b if block else a, b, 2 if stage and not block else 1))
        self.body = nn.Sequential(*blocks, nn.BatchNorm2d(widths[-1]), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x).flatten(1))
        return logits


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        )
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        entered = self.enter(x)
        kept: Tensor = x if self.shortcut is None else self.shortcut(entered)
        added: Tensor = self.body(entered)
        return kept + added
