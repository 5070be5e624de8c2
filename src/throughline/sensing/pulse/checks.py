"""What the arguments of several functions must be."""

import math

from torch import Tensor

__all__ = ["check_band", "check_rate", "check_rgb", "check_signal"]


def check_rgb(rgb: Tensor) -> None:
    if not rgb.is_floating_point():
        raise TypeError(f"rgb must be floating point, got {rgb.dtype}")
    if rgb.ndim < 2 or rgb.shape[-1] != 3:
        raise ValueError(f"rgb must have shape (..., T, 3), got {tuple(rgb.shape)}")


def check_signal(signal: Tensor, name: str) -> None:
    if not signal.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {signal.dtype}")
    if signal.ndim < 1 or signal.shape[-1] == 0:
        raise ValueError(f"{name} must have shape (..., T) with T >= 1, got {tuple(signal.shape)}")


def check_rate(fs: float) -> None:
    if not 0 < fs < math.inf:
        raise ValueError(f"fs must be a positive number of frames per second, got {fs}")


def check_band(fs: float, low: float, high: float) -> None:
    check_rate(fs)
    for name, edge in (("low", low), ("high", high)):
        if not 0 < edge < fs / 2:
            raise ValueError(f"{name} must lie in (0, fs/2) = (0, {fs / 2:g}) Hz, got {edge}")
    if low >= high:
        raise ValueError(f"low must be below high, got {low} and {high}")
