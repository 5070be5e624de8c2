"""The image sets of the paper: MNIST and CelebA."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from throughline.claims.lpn.config import Config
from throughline.claims.lpn.tasks import Pictures
from throughline.claims.shared.datasets import halves, torchvision_set

__all__ = ["pictures"]


def pictures(config: Config, seed: int) -> Pictures:
    """Training images as they are asked for, and those to test on that a seed draws."""
    order = torch.Generator().manual_seed(seed)
    if config.dataset == "mnist":
        train, test = (torch.as_tensor(half.data)[:, None] for half in halves("MNIST", config.root))
        train = train[torch.randperm(len(train), generator=order)[:50_000]]
        test = test[torch.randperm(len(test), generator=order)[:5_000]].float() / 255
        return Pictures(lambda rows: train[rows].float() / 255, len(train), test)
    faces = [torchvision_set("CelebA", config.root, split=split, download=True) for split in ("train", "test")]
    few = torch.randperm(len(faces[1]), generator=order)[: max(config.scored, config.restored)]
    return Pictures(partial(_faces, faces[0]), len(faces[0]), _faces(faces[1], few))


def _faces(data: Any, rows: Tensor) -> Tensor:
    """The largest centred square of photographs, at 128 pixels."""
    from PIL import ImageOps

    fitted = (ImageOps.fit(data[int(row)][0].convert("RGB"), (128, 128)) for row in rows)
    return torch.from_numpy(np.stack([np.asarray(image) for image in fitted])).movedim(-1, 1).float() / 255
