"""Cityscapes, for the paper scale: its scenes in torchvision, the classes that are evaluated, a network, and scores."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from throughline.claims.shared.datasets import torchvision_set
from throughline.lab import require

__all__ = ["CLASSES", "VOID", "confusion", "deeplab", "scenes", "scores", "train_ids"]

CLASSES = 19  # those that are evaluated
VOID = 255  # every other pixel


def scenes(root: str, split: str) -> Any:
    """Pairs of an image and the label ids of its pixels, both as bytes.

    Args:
        root: the folder that holds it.
        split: "train" or "val"; the labels of "test" are not public.
    """
    pixels = require("torchvision.transforms.functional", extra="paper").pil_to_tensor
    options = {"mode": "fine", "target_type": "semantic", "transform": pixels, "target_transform": pixels}
    return torchvision_set("Cityscapes", root, split=split, **options)


def train_ids(classes: Iterable[Any]) -> Tensor:
    """From label ids to the classes that are evaluated, `VOID` for the rest: ``(256,)``.

    Args:
        classes: the data set's own list, with ``id`` and ``train_id`` of each.
    """
    codes = torch.full((256,), VOID)
    for kind in classes:
        if kind.id >= 0 and 0 <= kind.train_id < CLASSES:
            codes[kind.id] = kind.train_id
    return codes


def deeplab() -> nn.Module:
    """torchvision's DeepLabV3 with a ResNet-50, untrained: images ``(n, 3, h, w)`` to ``(n, 19, h, w)``."""
    models = require("torchvision.models.segmentation", extra="paper")
    return _Dense(models.deeplabv3_resnet50(num_classes=CLASSES))


def confusion(truth: Tensor, found: Tensor) -> Tensor:
    """How many pixels of each class (rows) were given each class (columns), ``(19, 19)``; `VOID` is left out."""
    return (truth * CLASSES + found)[truth != VOID].bincount(minlength=CLASSES**2).view(CLASSES, CLASSES)


def scores(table: Tensor) -> dict[str, float]:
    """Accuracy of the pixels, and intersection over union: its mean over the classes that occur."""
    counts = table.double()
    right = counts.diag()
    union = counts.sum(0) + counts.sum(1) - right
    accuracy = right.sum() / counts.sum()
    return {"accuracy": accuracy.item(), "miou": (right / union)[union > 0].mean().item()}


class _Dense(nn.Module):
    """torchvision's segmentation models return a dictionary; this is its entry "out"."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        output: Tensor = self.model(image)["out"]
        return output
