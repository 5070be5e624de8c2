"""How a bent layout moves points between sensor and scene, both the square [-1, 1]²."""

from typing import Literal

import torch
from torch import Tensor

from throughline.core.checks import check_floating, check_tensor, readable

__all__ = [
    "Shape",
    "check_shape",
    "geometry",
    "smallest",
    "unwarp",
    "unwarp_points",
    "warp",
    "warp_gain",
    "warp_points",
    "warp_slope",
]

Shape = Literal["rectangular", "curvilinear"]


def warp_points(points: Tensor, curvature: Tensor, *, shape: Shape = "rectangular") -> Tensor:
    """Move points of the sensor to where a bent layout places them in the scene.

    Each coordinate is scaled by g(r) = (1 - s)/(1 + s - 2 s r), where r is its own distance from the axis
    ("rectangular") or the distance of the point from the centre ("curvilinear"). Beyond r = 1 nothing moves.

    Args:
        points: floating point, ``(..., 2)``, order (x, y).
        curvature: ``(2,)``, (s for x, t for y), each in (-1, 1); positive crowds the centre, negative the border.
        shape: "rectangular" (pixels stay axis-aligned) or "curvilinear".

    Returns:
        ``(..., 2)`` in the dtype of ``points``.

    Raises:
        TypeError: ``points`` is not floating point.
        ValueError: ``points`` does not end in 2, or ``curvature`` or ``shape`` is out of range.

    >>> warp_points(torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.tensor([0.5, 0.0]))
    tensor([[0.2500, 0.5000],
            [1.0000, 0.0000]])
    """
    points_, curvature_ = _check_points(points, curvature, shape)
    return warp(points_, curvature_, shape).to(points.dtype)


def unwarp_points(points: Tensor, curvature: Tensor, *, shape: Shape = "rectangular") -> Tensor:
    """Invert `warp_points`: scene to sensor, differentiable (once) in points and curvature.

    Arguments, result and errors are those of `warp_points`. The rectangular inverse is the warp with -curvature; the
    curvilinear one solves a quadratic per point and carries the derivative by one Newton step.

    >>> bend = torch.tensor([0.5, -0.3])
    >>> unwarp_points(warp_points(torch.tensor([0.3, -0.4]), bend, shape="curvilinear"), bend, shape="curvilinear")
    tensor([ 0.3000, -0.4000])
    """
    points_, curvature_ = _check_points(points, curvature, shape)
    return unwarp(points_, curvature_, shape).to(points.dtype)


def warp_gain(radius: Tensor, curvature: Tensor) -> Tensor:
    # g(r) = (1 - s)/(1 + s - 2 s r) with the denominator written so that g is exactly 1 from r = 1 on
    return (1 - curvature) / ((1 - curvature) + 2 * curvature * (1 - radius.clamp(max=1)))


def warp_slope(radius: Tensor, curvature: Tensor) -> Tensor:
    slope = 2 * curvature * warp_gain(radius, curvature).square() / (1 - curvature)
    return torch.where(radius < 1, slope, torch.zeros_like(slope))


def warp(points: Tensor, curvature: Tensor, shape: Shape) -> Tensor:
    # both norms have derivative 0 at 0 in torch, which is what x g(r) needs there
    radius = points.abs() if shape == "rectangular" else torch.linalg.vector_norm(points, dim=-1, keepdim=True)
    return points * warp_gain(radius, curvature)


def unwarp(points: Tensor, curvature: Tensor, shape: Shape) -> Tensor:
    if shape == "rectangular":
        return warp(points, -curvature, shape)
    # near |curvature| = 1 single precision loses the root; Apple's devices have nothing better
    points, curvature = (v if v.device.type == "mps" else v.double() for v in (points, curvature))
    with torch.no_grad():
        radius = _solve_radius(points, curvature)
        gain, slope = warp_gain(radius, curvature), warp_slope(radius, curvature)
        start = points / gain
        # J = diag(g) + (u g') uᵀ/r: invert by Sherman and Morrison
        left, right = start * slope / gain, start / radius.clamp_min(smallest(radius))
        scale = 1 + (left * right).sum(-1, keepdim=True)
    # u = u₀ - J⁻¹(φ(u₀) - X): no change in value, and the derivative of the inverse, at the centre too
    residual = (warp(start, curvature, shape) - points) / gain
    return start - (residual - left * (right * residual).sum(-1, keepdim=True) / scale)


def _solve_radius(points: Tensor, curvature: Tensor) -> Tensor:
    """The r in [0, 1] with |(X/g_s(r), Y/g_t(r))| = r, ``(..., 2)`` to ``(..., 1)``, in closed form.

    1/(r g_s(r)) = ((1 + s)/r - 2 s)/(1 - s) is affine in w = 1/r, so that the equation is |a w - b|² = 1: the larger
    root of a quadratic, of which r is the reciprocal.
    """
    scaled = points / (1 - curvature)
    a, b = scaled * (1 + curvature), scaled * 2 * curvature
    aa, ab, bb = ((p * q).sum(-1, keepdim=True) for p, q in ((a, a), (a, b), (b, b)))
    cross = a[..., :1] * b[..., 1:] - a[..., 1:] * b[..., :1]
    root = (aa - cross.square()).clamp_min(0).sqrt()  # (a·b)² - |a|² (|b|² - 1), by Lagrange's identity
    tiny = smallest(points)
    radius: Tensor = torch.where(ab > 0, aa / (ab + root).clamp_min(tiny), (root - ab) / (1 - bb).clamp_min(tiny))
    return radius.clamp_max(1)  # beyond the unit circle the root is larger, and nothing moves


def geometry(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    # coordinates need at least float32, whatever the images are stored in
    return tensor.to(torch.promote_types(torch.promote_types(tensor.dtype, dtype), torch.float32))


def smallest(tensor: Tensor) -> float:
    return torch.finfo(tensor.dtype).tiny


def check_shape(shape: str) -> None:
    if shape not in ("rectangular", "curvilinear"):
        raise ValueError(f'shape must be "rectangular" or "curvilinear", got {shape!r}')


def _check_points(points: Tensor, curvature: Tensor, shape: str) -> tuple[Tensor, Tensor]:
    check_shape(shape)
    check_floating("points", points)
    check_tensor("curvature", curvature)
    if points.ndim == 0 or points.shape[-1] != 2:
        raise ValueError(f"points must have shape (..., 2), got {tuple(points.shape)}")
    if curvature.shape != (2,):
        raise ValueError(f"curvature must have shape (2,), got {tuple(curvature.shape)}")
    if readable(curvature) and not bool((curvature.abs() < 1).all()):
        raise ValueError(f"curvature must lie in (-1, 1), got {curvature.tolist()}")
    return geometry(points, curvature.dtype), geometry(curvature, points.dtype)
