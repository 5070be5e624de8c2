"""Class ids as people have them: a tensor, or the list or array that a data set calls its targets."""

from collections.abc import Sequence

import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Labels", "class_ids"]

Labels = Tensor | Sequence[int] | NDArray  # type: ignore[type-arg]


def class_ids(labels: Labels) -> Tensor:
    """The integer ids as a tensor.

    Raises:
        TypeError: ``labels`` is none of these, or what it holds is no number.
        ValueError: numbers that are not integers.

    >>> class_ids([3, 1, 3])
    tensor([3, 1, 3])
    """
    try:
        ids = labels if isinstance(labels, Tensor) else torch.as_tensor(labels, device="cpu")
    except (RuntimeError, TypeError, ValueError):
        raise TypeError(
            f"labels must be integer class ids in a tensor, list or array, got {type(labels).__name__}{_first(labels)}"
        ) from None
    if not ids.numel():  # a list of none has no integers to be told by
        return ids.long()
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(f"labels must be integer class ids, got {ids.dtype}")
    return ids


def _first(labels: object) -> str:
    return f" of {type(labels[0]).__name__}" if isinstance(labels, list | tuple) and labels else ""
