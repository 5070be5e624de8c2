"""Checks that the files of this package share."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from throughline.core.checks import check_floating

__all__ = ["check_points", "check_weight", "common_lead", "widened"]


def check_points(name: str, value: object) -> None:
    """Raise unless ``value`` holds points of the image, ``(..., N, 2)``."""
    check_floating(name, value)
    assert isinstance(value, Tensor)
    if value.ndim < 2 or value.shape[-1] != 2:
        raise ValueError(f"{name} must be points (..., n, 2), got shape {tuple(value.shape)}")


def check_weight(name: str, value: float) -> None:
    """Raise unless ``value`` is a number from 0 on."""
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be not negative and finite, got {value}")


def common_lead(**shapes: Sequence[int]) -> torch.Size:
    """The leading dimensions that the arguments have together, by broadcasting."""
    try:
        lead: torch.Size = torch.broadcast_shapes(*map(tuple, shapes.values()))  # type: ignore[no-untyped-call]
        return lead
    except RuntimeError:
        told = " and ".join(f"{tuple(shape)} of {name}" for name, shape in shapes.items())
        raise ValueError(f"{' and '.join(shapes)} must have leading dimensions that broadcast, got {told}") from None


def widened(x: Tensor) -> Tensor:
    """In float32 at least: half precision cannot count the pixels of an image."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
