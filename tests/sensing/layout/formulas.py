"""The formulas of the paper in NumPy, sharing no line with the sources, and scenes to try them on."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from torch import Tensor

from throughline.sensing.layout import SensorLayout

SHAPES = ("rectangular", "curvilinear")

BEND = (0.45, -0.3)  # x and y differ, and so do all heights and widths: an x/y swap cannot hide

Array = NDArray[np.float64]


def scene(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def layout(size: tuple[int, int] = (3, 5), bend: tuple[float, float] = BEND, **options: Any) -> SensorLayout:
    return SensorLayout(size, curvature=bend, dtype=torch.float64, **options)


def gain(r: Array, s: float) -> Array:
    return (1 - s) / (1 + s - 2 * s * r)


def placed(x: Array, y: Array, bend: tuple[float, float], shape: str) -> tuple[Array, Array]:
    if shape == "rectangular":
        return x * gain(np.abs(x), bend[0]), y * gain(np.abs(y), bend[1])
    r = np.minimum(np.hypot(x, y), 1)
    return x * gain(r, bend[0]), y * gain(r, bend[1])


def motion(x: Array, y: Array, bend: tuple[float, float], shape: str) -> tuple[Array, Array]:
    """∂φ_x/∂s and ∂φ_y/∂t."""
    rx, ry = (np.abs(x), np.abs(y)) if shape == "rectangular" else (np.minimum(np.hypot(x, y), 1),) * 2
    return tuple(2 * u * (r - 1) / (1 + s - 2 * s * r) ** 2 for u, r, s in ((x, rx, bend[0]), (y, ry, bend[1])))  # type: ignore[return-value]


def radiance(image: Array, x: Array, y: Array) -> Array:
    height, width = image.shape
    rows, columns = (y + 1) * height / 2 - 0.5, (x + 1) * width / 2 - 0.5
    return map_coordinates(image, [rows, columns], order=1, mode="nearest")


def boundary(cell: tuple[int, int], size: tuple[int, int], n: int) -> tuple[Array, Array]:
    """A closed polygon of 4 n + 1 points around a pixel of the uniform grid."""
    (i, j), (h, w) = cell, size
    left, right, top, bottom = -1 + 2 * j / w, -1 + 2 * (j + 1) / w, -1 + 2 * i / h, -1 + 2 * (i + 1) / h
    t = np.arange(n) / n
    xs = [left + (right - left) * t, np.full(n, right), right + (left - right) * t, np.full(n, left)]
    ys = [np.full(n, top), top + (bottom - top) * t, np.full(n, bottom), bottom + (top - bottom) * t]
    return np.append(np.concatenate(xs), left), np.append(np.concatenate(ys), top)


def dense(image: Array, size: tuple[int, int], bend: tuple[float, float], shape: str, n: int = 240) -> Array:
    """Eq. 1 as area-weighted mean over n × n quadrilaterals per pixel, areas by the shoelace formula."""
    h, w = size
    x, y = np.meshgrid(np.linspace(-1, 1, w * n + 1), np.linspace(-1, 1, h * n + 1))
    x, y = placed(x, y, bend, shape)
    a, b = (x[1:, 1:] - x[:-1, :-1], y[1:, 1:] - y[:-1, :-1]), (x[1:, :-1] - x[:-1, 1:], y[1:, :-1] - y[:-1, 1:])
    area = np.abs(a[0] * b[1] - a[1] * b[0]) / 2
    mid = [(p[1:, 1:] + p[:-1, :-1] + p[1:, :-1] + p[:-1, 1:]) / 4 for p in (x, y)]
    sums = [v.reshape(h, n, w, n).sum((1, 3)) for v in (radiance(image, *mid) * area, area)]
    return sums[0] / sums[1]
