"""ProxylessNAS at paper scale: ImageNet and the space of inverted residual blocks for it."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from throughline.claims.proxylessnas.config import Config
from throughline.claims.proxylessnas.data import Task, draw
from throughline.claims.shared.backbones import CHANNEL_MEAN, CHANNEL_STD, centre_crop
from throughline.errors import ThroughlineError
from throughline.lab import require
from throughline.search.spaces import mobile_space

__all__ = ["load"]

HELD_OUT = 50_000  # training images that architectures are judged by in the search
JITTER = {"brightness": 32 / 255, "saturation": 0.5}
TRAINING, VALIDATION, FINAL, TEST = 11, 12, 13, 14


def load(config: Config, seed: int) -> Task:
    """The task of a seed: random views to train on, and images cut out of the middle to judge by.

    Raises:
        ThroughlineError: no such folders, or torchvision is missing.
    """
    folders = {part: Path(config.root) / part for part in ("train", "val")}
    for folder in folders.values():
        if not config.root or not folder.is_dir():
            raise ThroughlineError(f"{folder}: no such folder; ImageNet lies in train/ and val/ of --set root=FOLDER")
    open_folder = require("torchvision.datasets", extra="paper").ImageFolder
    middle = centre_crop(config.size * 256 // 224, config.size)
    learned = open_folder(str(folders["train"]), views(config.size))
    plain, test = (open_folder(str(folders[part]), middle) for part in ("train", "val"))
    order = torch.randperm(len(learned), generator=torch.Generator().manual_seed(seed)).tolist()
    held = order[: min(HELD_OUT, len(order) // 2)]
    rest = Subset(learned, order[len(held) :])
    loader = partial(OnDevice, config=config, seed=seed)
    final, judged = (rest, Subset(plain, held)) if config.held_out == "validation" else (learned, test)
    return Task(
        loader(rest, purpose=TRAINING),
        loader(Subset(learned, held), purpose=VALIDATION),
        loader(final, purpose=FINAL),
        loader(judged, purpose=TEST, training=False),
        partial(mobile_space, len(learned.classes)),
        torch.randn(config.batch, 3, config.size, config.size, generator=draw(0, TEST)).to(config.device),
        seed,
    )


def views(size: int) -> Any:
    """torchvision's transform of a PIL image for training: a random part, mirrored or not, in other colours."""
    transforms = require("torchvision.transforms", extra="paper")
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(**JITTER),
            transforms.ToTensor(),
            transforms.Normalize(CHANNEL_MEAN, CHANNEL_STD),
        ]
    )


class OnDevice:
    """Batches of a data set, moved to the device; for training in random order and full ones alone."""

    def __init__(self, images: Any, *, config: Config, seed: int, purpose: int, training: bool = True) -> None:
        self.device = torch.device(config.device)
        self.loader: DataLoader[Any] = DataLoader(
            images,
            config.batch,
            shuffle=training,
            drop_last=training,
            num_workers=config.workers,
            pin_memory=self.device.type == "cuda",
            generator=draw(seed, purpose),
        )

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in self.loader:
            yield x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)

    def __len__(self) -> int:
        return len(self.loader)
