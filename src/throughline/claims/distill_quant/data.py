"""What the distill-quant claim trains on: images or tables in memory, and teachers and students to go with them."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from throughline.claims.shared.augmentation import shifted_and_mirrored
from throughline.data import Source, digits, image_folder, mnist, standardize, stratified_split
from throughline.errors import ThroughlineError
from throughline.lab import require

__all__ = ["Config", "Task", "check", "load"]

TEACHER = ((76, 76), (126, 126), (148,) * 4), (1200, 1200), 3  # convolutions between poolings, hidden layers, kernel
STUDENTS = {  # of CIFAR-10, by millions of parameters
    "1.0": (((75,), (50, 50), (25,)), (500,), 5),
    "0.3": (((50,), (25, 25), (10,)), (400,), 5),
    "0.1": (((25,), (10, 10), (5,)), (300,), 5),
}
WIDE = {"teacher": (28, 10), "student": (22, 8)}  # depth and width factor of CIFAR-100's residual networks


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment, the same in every arm."""

    dataset: Literal["digits", "mnist", "cifar10", "cifar100"] = "mnist"  # unless data is given
    teacher: tuple[int, ...] = (16, 32, 128)  # channels of the convolutions (none for a table), and the hidden layer
    student: tuple[int, ...] = (4, 8, 32)
    epochs: int = 6
    point_epochs: int = 3
    batch: int = 64
    lr: float = 0.02
    point_lr: float = 1e-3
    weight_decay: float = 0.0
    temperature: float = 5.0
    weight: float = 0.7  # of the teacher in the loss
    bits: tuple[int, ...] = (1, 2, 3, 4, 8)
    test: float = 0.2  # share of the rows, where the data set has no test part of its own
    millions: Literal["1.0", "0.3", "0.1"] = "1.0"  # paper scale: the size of CIFAR-10's student
    root: str = ""  # paper scale: where torchvision keeps its data sets
    device: str = "cpu"
    data: Source | None = None


class Task(NamedTuple):
    """Both parts of a data set, split for one seed, and the networks for it."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    teacher: Callable[[], nn.Module]
    student: Callable[[], nn.Module]
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None


def check(config: Config) -> None:
    """Fetch and read what `load` will need, so that a fault is one line before anything runs."""
    if not {2, 4} <= set(config.bits) or not all(1 <= bits <= 16 for bits in config.bits):
        raise ThroughlineError(f"bits must be from 1 to 16, with 2 and 4 among them, got {config.bits}")
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        raise ThroughlineError(f"device={config.device}: this machine has no GPU that torch can use; --set device=cpu")
    load(config, 0)


def load(config: Config, seed: int) -> Task:
    """The task of one seed, alike in every arm."""
    if config.data is None and config.dataset.startswith("cifar"):
        task = _cifar(config)
    elif config.data is not None and config.data.kind == "table":
        task = _table(config, seed)
    else:
        task = _pictures(config, seed)
    return task._replace(**{name: getattr(task, name).to(config.device) for name in ("x", "y", "test_x", "test_y")})


def _pictures(config: Config, seed: int) -> Task:
    if config.data is not None:
        images = image_folder(config.data.path, size=config.data.size or 32)
    else:
        images = digits() if config.dataset == "digits" else mnist()
    train, test = map(torch.from_numpy, stratified_split(images.labels, seed, test=config.test))
    pixels = images.images
    std, mean = torch.std_mean(pixels[train], (0, 2, 3), keepdim=True)
    pixels = (pixels - mean) / std.clamp_min(1e-6)
    classes = len(images.classes)

    def network(widths: tuple[int, ...]) -> Callable[[], nn.Module]:
        return lambda: convnet(tuple(pixels.shape[1:]), widths, classes).to(config.device)

    parts = (pixels[train], images.labels[train], pixels[test], images.labels[test])
    return Task(*parts, network(config.teacher), network(config.student))


def _table(config: Config, seed: int) -> Task:
    assert config.data is not None
    table = config.data.table()
    labels = np.unique(table.y, return_inverse=True)[1]
    train, test = stratified_split(labels, seed, test=config.test)
    x, test_x = (torch.from_numpy(part).float() for part in standardize(table.x[train], table.x[test]))
    y, test_y = (torch.from_numpy(labels[rows]).long() for rows in (train, test))
    classes = int(labels.max()) + 1

    def network(widths: tuple[int, ...]) -> Callable[[], nn.Module]:
        return lambda: mlp(x.shape[1], widths[-1], classes).to(config.device)

    return Task(x, y, test_x, test_y, network(config.teacher), network(config.student))


def _cifar(config: Config) -> Task:
    datasets = require("torchvision.datasets", extra="paper")
    import pooch

    root = config.root or Path(pooch.os_cache("throughline")) / "torchvision"
    kind = datasets.CIFAR10 if config.dataset == "cifar10" else datasets.CIFAR100
    parts: list[Tensor] = []
    for train in (True, False):
        stored = kind(root, train=train, download=True)
        parts += [torch.as_tensor(stored.data).movedim(-1, 1).float() / 255, torch.as_tensor(stored.targets)]
    std, mean = torch.std_mean(parts[0], (0, 2, 3), keepdim=True)
    x, test_x = ((pixels - mean) / std.clamp_min(1e-6) for pixels in (parts[0], parts[2]))
    classes = 10 if config.dataset == "cifar10" else 100

    def network(role: Literal["teacher", "student"]) -> Callable[[], nn.Module]:
        if config.dataset == "cifar100":
            return lambda: WideResNet(*WIDE[role], classes).to(config.device)
        return lambda: deep_convnet(*(TEACHER if role == "teacher" else STUDENTS[config.millions])).to(config.device)

    return Task(x, parts[1], test_x, parts[3], network("teacher"), network("student"), shifted_and_mirrored)


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
