"""What the arguments of several functions must be, and the rates that all of them look for."""

import math
from fractions import Fraction

from torch import Tensor

from throughline.core.checks import check_floating

__all__ = ["BAND", "HIGH", "LOW", "Rate", "check_band", "check_rgb", "check_signal", "frame_rate"]

BAND = (40, 180)  # beats per minute, from deep sleep to hard exercise
LOW, HIGH = BAND[0] / 60, BAND[1] / 60  # Hz

Rate = float | Fraction


def check_rgb(rgb: Tensor) -> None:
    check_floating("rgb", rgb)
    if rgb.ndim < 2 or rgb.shape[-1] != 3:
        raise ValueError(f"rgb must have shape (..., T, 3), got {tuple(rgb.shape)}")


def check_signal(signal: Tensor, name: str) -> None:
    check_floating(name, signal)
    if signal.ndim < 1 or signal.shape[-1] == 0:
        raise ValueError(f"{name} must have shape (..., T) with T >= 1, got {tuple(signal.shape)}")


def frame_rate(fs: Rate) -> float:
    """``fs`` as a float, from a Fraction too, which is how files have it."""
    try:
        rate = float(fs)
    except (TypeError, ValueError):
        raise TypeError(f"fs must be a number of frames per second, got {fs!r}") from None
    if not 0 < rate < math.inf:
        raise ValueError(f"fs must be a positive number of frames per second, got {fs}")
    return rate


def check_band(fs: float, low: float, high: float) -> None:
    for name, edge in (("low", low), ("high", high)):
        if not 0 < edge < fs / 2:
            raise ValueError(f"{name} must lie in (0, fs/2) = (0, {fs / 2:g}) Hz, got {edge:g}")
    if low >= high:
        raise ValueError(f"low must be below high, got {low:g} and {high:g}")
