"""Data sets of torchvision, for the paper scale: below a folder of the user's, or in the cache."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from throughline.data import DataError
from throughline.lab import require

__all__ = ["MNIST_MEAN", "MNIST_STD", "halves", "pictures", "superclasses", "torchvision_set"]

MNIST_MEAN, MNIST_STD = 0.1307, 0.3081  # of all pixels of its training part


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


def halves(name: str, root: str = "", **options: Any) -> tuple[Any, Any]:
    """The training and the test part of a data set, by `torchvision_set`; downloaded where they are missing."""
    train, test = (torchvision_set(name, root, train=part, download=True, **options) for part in (True, False))
    return train, test


def pictures(stored: Any) -> tuple[Tensor, Tensor]:
    """Images ``(n, c, h, w)`` in [0, 1] and labels ``(n,)`` of a set that torchvision holds in memory."""
    pixels = torch.as_tensor(stored.data).float() / 255
    return pixels[:, None] if pixels.ndim == 3 else pixels.movedim(-1, 1), torch.as_tensor(stored.targets)


def superclasses(stored: Any, half: str) -> NDArray[np.int64]:
    """The twenty superclasses ``(n,)`` of CIFAR-100, which its "train" and "test" files hold and torchvision leaves."""
    with (Path(stored.root) / stored.base_folder / half).open("rb") as stream:
        return np.asarray(pickle.load(stream, encoding="latin1")["coarse_labels"])
