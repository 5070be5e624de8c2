"""What GroCo's claim trains on and is asked about: images in memory, split into a bank and queries."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from throughline.claims.groco.config import Config
from throughline.claims.shared.augmentation import affine_view, photo_view
from throughline.claims.shared.classes import class_split
from throughline.claims.shared.pictures import labelled_images, resized
from throughline.data import omniglot

__all__ = ["Split", "load"]

Views = Callable[[Tensor, torch.Generator], Tensor]


class Split(NamedTuple):
    """Labelled bank, whose images are also the unlabelled training set, and queries; pixels in [0, 1]."""

    bank: Tensor  # (n, c, h, w)
    bank_labels: Tensor
    queries: Tensor
    query_labels: Tensor
    views: Views  # one random view of every image
    mean: Tensor  # of the bank's pixels by channel
    std: Tensor

    def scaled(self, x: Tensor) -> Tensor:
        return ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


def load(config: Config, seed: int) -> Split:
    """Images, split by drawer (Omniglot) or 75 to 25 within each class."""
    if config.data is None and config.images == "omniglot":
        drawn = omniglot()
        queries = torch.randperm(20, generator=torch.Generator().manual_seed(seed))[:5]
        test = torch.isin(drawn.drawers, queries)
        return _split(resized(drawn.images, config.size), drawn.labels, ~test, test, affine_view)
    images = labelled_images(config.data, config.images, size=32)
    view = affine_view if config.data is None else photo_view
    rows = class_split(images.labels, images.classes, seed, 0.25, source=config.data)
    train, test = map(torch.as_tensor, rows)
    return _split(images.images, images.labels, train, test, view)


def _split(images: Tensor, labels: Tensor, train: Tensor, test: Tensor, views: Views) -> Split:
    std, mean = torch.std_mean(images[train], (0, 2, 3), keepdim=True)
    return Split(images[train], labels[train], images[test], labels[test], views, mean, std.clamp_min(1e-6))
