"""CIFAR-10 and CIFAR-100 for the distill-quant claim, and the paper's networks for them."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from throughline.claims.distill_quant.config import Config
from throughline.claims.distill_quant.data import Task
from throughline.claims.shared.augmentation import shifted_and_mirrored
from throughline.claims.shared.convnets import grouped_convnet
from throughline.claims.shared.datasets import halves, pictures
from throughline.claims.shared.wide_resnet import WideResNet

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
    (x, y), (test_x, test_y) = map(pictures, halves(name, config.root))
    std, mean = torch.std_mean(x, (0, 2, 3), keepdim=True)
    x, test_x = ((pixels - mean) / std.clamp_min(1e-6) for pixels in (x, test_x))
    classes = 10 if config.dataset == "cifar10" else 100

    def network(role: Literal["teacher", "student"]) -> Callable[[], nn.Module]:
        if config.dataset == "cifar100":
            return lambda: WideResNet(*WIDE[role], classes).to(config.device)
        return lambda: deep_convnet(*(TEACHER if role == "teacher" else STUDENTS[config.millions])).to(config.device)

    return Task(x, y, test_x, test_y, network("teacher"), network("student"), shifted_and_mirrored)


def deep_convnet(groups: tuple[tuple[int, ...], ...], hidden: tuple[int, ...], kernel: int) -> nn.Sequential:
    """CIFAR-10: a pooling after each group of convolutions but the last of a student."""
    return grouped_convnet((3, 32, 32), groups, hidden, 10, kernel=kernel, pool_last=kernel == 3)
