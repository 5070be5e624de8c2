"""Image folders that no memory holds, as torchvision and lightly read them: random views, and features."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from throughline.claims.shared.backbones import centre_crop
from throughline.lab import require

__all__ = ["unit_features", "view_pairs"]


def view_pairs(
    folder: str,
    size: int,
    batch: int,
    *,
    rank: int,
    processes: int,
    seed: int,
    workers: int,
    pinned: bool,
    **augmentation: float,
) -> tuple[DataLoader[Any], DistributedSampler[Any]]:
    """Batches of two random views of each image, for one of several processes, and the sampler that orders them.

    Args:
        folder: has a folder for each class in it.
        size: pixels of a view on a side.
        batch: images of all processes together.
        rank: of this process.
        processes: how many there are.
        seed: of the order.
        workers: loader processes.
        pinned: whether batches lie in pinned memory.
        augmentation: options of lightly's ``DINOTransform``.
    """
    views = require("lightly.transforms", extra="paper").DINOTransform(
        global_crop_size=size, n_local_views=0, **augmentation
    )
    images = require("torchvision.datasets", extra="paper").ImageFolder(folder, views)
    sampler: DistributedSampler[Any] = DistributedSampler(images, processes, rank, seed=seed, drop_last=True)
    loader = DataLoader(
        images,
        batch // processes,
        sampler=sampler,
        num_workers=workers,
        drop_last=True,
        pin_memory=pinned,
        persistent_workers=workers > 0,
    )
    return loader, sampler


@torch.no_grad()
def unit_features(encoder: nn.Module, folder: str, size: int, workers: int) -> tuple[Tensor, Tensor]:
    """Features of length one in half precision, and labels, of the images in class folders, on the encoder's device."""
    images = require("torchvision.datasets", extra="paper").ImageFolder(folder, centre_crop(size * 256 // 224, size))
    device = next(encoder.parameters()).device
    encoder.eval()
    found = [
        (F.normalize(encoder(x.to(device)).float(), dim=-1).half().cpu(), y)
        for x, y in DataLoader(images, 256, num_workers=workers)
    ]
    return torch.cat([x for x, _ in found]).to(device), torch.cat([y for _, y in found]).to(device)
