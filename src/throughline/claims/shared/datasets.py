"""Data sets of torchvision, for the paper scale: below a folder of the user's, or in the cache."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from throughline.data import DataError
from throughline.lab import require

__all__ = ["pictures", "torchvision_set"]


def torchvision_set(name: str, root: str = "", **options: Any) -> Any:
    """The data set of that name below ``root``, or in the cache; ``options`` are its own.

    Raises:
        DataError: it cannot be read or downloaded.
    """
    datasets = require("torchvision.datasets", extra="paper")
    import pooch

    place = root or str(Path(pooch.os_cache("throughline")) / "torchvision")
    try:
        return getattr(datasets, name)(place, **options)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{name} could not be read below {place}: {error}") from error


def pictures(stored: Any) -> tuple[Tensor, Tensor]:
    """Images ``(n, c, h, w)`` in [0, 1] and labels ``(n,)`` of a set that torchvision holds in memory."""
    pixels = torch.as_tensor(stored.data).float() / 255
    return pixels[:, None] if pixels.ndim == 3 else pixels.movedim(-1, 1), torch.as_tensor(stored.targets)
