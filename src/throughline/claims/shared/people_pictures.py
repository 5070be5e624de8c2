"""A user's pictures of people, brought to one size together with what lies on them."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from throughline.data import Person

__all__ = ["resized_person"]


def resized_person(person: Person, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Bytes ``(3, size, size)``, labels ``(size, size)``, keypoints ``(24, 3)`` and, where known, K ``(3, 3)``."""
    with Image.open(person.image) as file:
        side = file.width
        image = np.array(file.convert("RGB").resize((size, size), Image.Resampling.BOX))
    with Image.open(person.parsing) as file:
        labels = np.array(file.resize((size, size), Image.Resampling.NEAREST))
    scale = size / side
    shift = (scale - 1) / 2  # pixel centres are whole numbers: c becomes s (c + ½) - ½
    keypoints = torch.from_numpy(person.keypoints * (scale, scale, 1) + (shift, shift, 0)).float()
    K = None
    if person.K is not None:
        K = torch.from_numpy(person.K * ((scale,), (scale,), (1,))).float()
        K[:2, 2] += shift
    return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(labels), keypoints, K
