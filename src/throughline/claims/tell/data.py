"""What the TELL claim clusters: images or the columns of a table, in [0, 1]."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from throughline.claims.shared.classes import class_table_of
from throughline.claims.shared.clusterings import count_directions
from throughline.claims.shared.datasets import halves, pictures, superclasses
from throughline.claims.tell.config import Config
from throughline.data import DataError, digits
from throughline.errors import ThroughlineError

__all__ = ["Samples", "check", "load"]

MOST_CLASSES = 100
MOST_FEATURES = 64 * 64 * 3  # of a row for the dense network


class Samples(NamedTuple):
    """Rows to cluster, and the classes that a clustering is compared with."""

    x: Tensor  # (n, ...) float32 in [0, 1], in the shape that the network takes
    labels: np.ndarray  # (n,) in 0 … clusters - 1
    clusters: int
    shape: tuple[int, ...]  # of one sample as a picture, (c, h, w), or of a row of a table, (D,)

    @property
    def flat(self) -> Tensor:
        return self.x.flatten(1)


def check(config: Config) -> None:
    """Fetch and read what the units will need, so that a fault is one line before anything runs."""
    if not config.pretrain < config.epochs:
        raise ThroughlineError(
            f"pretrain={config.pretrain} of epochs={config.epochs} leaves none to cluster in; --set pretrain="
            f"{config.epochs - 1} or less"
        )
    samples = load(config, 0)
    if config.network == "convolutional" and len(samples.shape) != 3:
        raise ThroughlineError("network=convolutional clusters images, and this is a table; --set network=dense")
    if config.network == "dense" and samples.flat.shape[1] > MOST_FEATURES:
        raise DataError(
            f"{samples.flat.shape[1]} features a row, and the most for the dense network is {MOST_FEATURES}; "
            "give --size 32, or --set network=convolutional"
        )
    where = f"{config.data.path}: " if config.data is not None else ""
    if len(samples.x) < 2 * samples.clusters:
        raise DataError(
            f"{where}a cluster for each of {samples.clusters} classes wants two samples a class, and there are "
            f"{len(samples.x)} in all; " + ("add some, or remove classes" if config.data else "--set samples=0 for all")
        )
    if config.data is not None:
        different = count_directions(samples.flat)
        if different <= samples.clusters:
            raise DataError(
                f"{where}{len(samples.x)} samples point in {different} directions, and {samples.clusters} clusters of "
                "directions want more; add samples, or columns to a table"
            )


def load(config: Config, seed: int) -> Samples:
    """The samples of a seed: all of them, or as many as the configuration wants."""
    x, labels = _read(config)
    names, labels = np.unique(labels, return_inverse=True)
    if len(names) > MOST_CLASSES:
        raise DataError(f"{len(names)} classes, and at most {MOST_CLASSES} clusters are wanted; remove some folders")
    shape = tuple(x.shape[1:])
    if config.samples:
        rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[: config.samples]
        x, labels = x[rows], labels[rows.numpy()]
    return Samples(x.flatten(1) if config.network == "dense" else x, labels, len(names), shape)


def _read(config: Config) -> tuple[Tensor, np.ndarray]:
    if config.data is not None and config.data.kind == "table":
        table, names = class_table_of(config.data)
        low, high = table.x.min(0), table.x.max(0)
        scaled = (table.x - low) / np.where(high > low, high - low, 1.0)
        return torch.as_tensor(scaled, dtype=torch.float32), np.asarray(names)[table.y]
    if config.data is not None:
        images = config.data.images()
        return images.images, images.labels.numpy()
    if config.dataset == "digits":
        found = digits()
        return found.images, found.labels.numpy()
    return _torchvision(config)


def _torchvision(config: Config) -> tuple[Tensor, np.ndarray]:
    """Training and test images together, as the paper clusters them; CIFAR-100 with its twenty superclasses."""
    parts = halves({"mnist": "MNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}[config.dataset], config.root)
    x, labels = (torch.cat(both) for both in zip(*map(pictures, parts), strict=True))
    if config.dataset == "cifar100":
        coarse = [superclasses(part, half) for part, half in zip(parts, ("train", "test"), strict=True)]
        return x.contiguous(), np.concatenate(coarse)
    return x.contiguous(), labels.numpy()
