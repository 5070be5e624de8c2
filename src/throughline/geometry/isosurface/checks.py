"""What the functions of this package ask of their arguments."""

import math

import torch
from torch import Tensor

from throughline.core.checks import check_floating, check_tensor, integer, readable

__all__ = ["check_finite", "check_level", "check_mesh", "check_points", "check_positive", "count"]


def check_finite(name: str, values: Tensor) -> None:
    """Raise a ValueError when some of ``values`` are not finite, if they can be looked at."""
    if not readable(values) or not values.numel():
        return
    ends = torch.stack(values.detach().aminmax())  # one pass, and a NaN goes through it
    if not ends.isfinite().all():
        wrong = int((~values.isfinite()).sum())
        raise ValueError(f"{name} must be finite, got {wrong} of {values.numel()} values that are not")


def check_level(level: float) -> None:
    """Raise a ValueError for a level that no surface can be at."""
    if not math.isfinite(level):
        raise ValueError(f"level must be finite, got {level}")


def check_points(name: str, points: Tensor) -> None:
    """Raise unless ``points`` are (N, 3), floating point and finite."""
    check_floating(name, points)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"{name} must be (N, 3), got shape {tuple(points.shape)}")
    check_finite(name, points)


def check_mesh(vertices: Tensor, faces: Tensor) -> None:
    """Raise unless ``vertices`` are points, and ``faces`` triangles of them, at least one."""
    check_points("vertices", vertices)
    check_tensor("faces", faces)
    if faces.dtype != torch.int64:
        raise ValueError(f"faces must be int64, got {faces.dtype}")
    if faces.ndim != 2 or faces.shape[1] != 3 or not len(faces):
        raise ValueError(f"faces must be (F, 3) with F at least 1, got shape {tuple(faces.shape)}")
    if readable(faces):
        low, high = (int(end) for end in faces.aminmax())
        if low < 0 or high >= len(vertices):
            raise ValueError(f"faces must be in [0, {len(vertices)}), got {low if low < 0 else high}")


def check_positive(name: str, value: float) -> None:
    """Raise a ValueError unless ``value`` is positive and finite."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}")


def count(name: str, value: object, least: int = 1) -> int:
    """``value`` as an integer of at least ``least``."""
    number = integer(name, value)
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number
