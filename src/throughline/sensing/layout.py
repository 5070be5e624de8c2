"""Pixel grids that bend to their task ("Differentiable Sensor Layouts for End-to-End Learning of Task-Specific Camera
Parameters", arXiv 2304.14736).

Sensor and scene are both the square [-1, 1]², x to the right and y down, as in ``grid_sample(align_corners=False)``.
Points and curvatures are ordered (x, y), sizes (height, width).
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SensorLayout", "box_average", "unwarp_points", "warp_points"]

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
    return _warp(points_, curvature_, shape).to(points.dtype)


def unwarp_points(points: Tensor, curvature: Tensor, *, shape: Shape = "rectangular") -> Tensor:
    """Invert `warp_points`: scene to sensor, differentiable (once) in points and curvature.

    Arguments, result and errors are those of `warp_points`. The rectangular inverse is the warp with -curvature; the
    curvilinear one solves a quadratic per point and carries the derivative by one Newton step.

    >>> bend = torch.tensor([0.5, -0.3])
    >>> unwarp_points(warp_points(torch.tensor([0.3, -0.4]), bend, shape="curvilinear"), bend, shape="curvilinear")
    tensor([ 0.3000, -0.4000])
    """
    points_, curvature_ = _check_points(points, curvature, shape)
    return _unwarp(points_, curvature_, shape).to(points.dtype)


def box_average(image: Tensor, x_edges: Tensor, y_edges: Tensor) -> Tensor:
    """Exact mean of the bilinear image over every rectangle of a grid, by two small matrix products.

    The image is continued as a constant in its outermost half pixel. Everything is C¹ in the edges, so that autograd
    yields the integral over the pixel boundary that the paper estimates by sampling.

    Args:
        image: floating point, ``(..., H, W)``.
        x_edges: ``(w + 1,)``, increasing, in [-1, 1].
        y_edges: ``(h + 1,)``, increasing, in [-1, 1].

    Returns:
        ``(..., h, w)`` in the dtype of ``image``; differentiable in all three arguments.

    Raises:
        TypeError: an argument is not floating point.
        ValueError: ``image`` has fewer than 2 dimensions, or edges are not 1-D, do not increase or leave [-1, 1].

    >>> box_average(torch.arange(4.0).expand(4, 4), torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([-1.0, 1.0]))
    tensor([[0.5625, 2.4375]])
    """
    _check_image(image, 2)
    for name, edges in (("x_edges", x_edges), ("y_edges", y_edges)):
        if not edges.is_floating_point():
            raise TypeError(f"{name} must be floating point, got {edges.dtype}")
        if edges.ndim != 1 or len(edges) < 2:
            raise ValueError(f"{name} must have shape (n,) with n >= 2, got {tuple(edges.shape)}")
        if not torch.compiler.is_compiling():
            if not bool((edges.diff() > 0).all()):
                raise ValueError(f"{name} must increase, got {edges.tolist()}")
            if edges[0] < -1 or edges[-1] > 1:
                raise ValueError(f"{name} must lie in [-1, 1], got {edges.tolist()}")
    return _box_average(image, x_edges, y_edges)


class SensorLayout(nn.Module):
    """A sensor whose pixel grid is learned: what each bent pixel measures of a high-resolution image (eq. 1).

    A pixel's value is the mean radiance over its area: exact for rectangular layouts, ``samples`` × ``samples``
    midpoints per pixel weighted by the warp's Jacobian determinant for curvilinear ones. Deterministic, in training as
    in evaluation; gradients reach the layout and the image. ``requires_grad_(False)`` makes a fixed layout, with zero
    curvature the uniform sensor.

    Args:
        size: sensor pixels, (height, width) or one number for both.
        shape: "rectangular" or "curvilinear".
        curvature: initial (x, y), each smaller than ``max_curvature`` in absolute value.
        max_curvature: bound c in curvature = c · tanh(raw), in (0, 1).
        samples: midpoints per pixel and direction, curvilinear only.

    Raises:
        ValueError: an argument is out of range.

    >>> SensorLayout((4, 6), curvature=(0.3, 0.0))(torch.ones(2, 3, 32, 48)).shape
    torch.Size([2, 3, 4, 6])
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        *,
        shape: Shape = "rectangular",
        curvature: tuple[float, float] = (0.0, 0.0),
        max_curvature: float = 0.6,
        samples: int = 4,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _check_shape(shape)
        height, width = (size, size) if isinstance(size, int) else size
        if height < 1 or width < 1:
            raise ValueError(f"size must be at least 1 in both directions, got {size}")
        if samples < 1:
            raise ValueError(f"samples must be at least 1, got {samples}")
        if not 0 < max_curvature < 1:
            raise ValueError(f"max_curvature must lie in (0, 1), got {max_curvature}")
        if len(curvature) != 2 or not all(abs(c) < max_curvature for c in curvature):
            raise ValueError(
                f"curvature must be two numbers smaller than max_curvature={max_curvature} in size, got {curvature}"
            )
        self.size = (height, width)
        self.shape: Shape = shape
        self.max_curvature = max_curvature
        self.samples = samples
        raw = [math.atanh(c / max_curvature) for c in curvature]
        self.raw = nn.Parameter(torch.tensor(raw, device=device, dtype=dtype))

    @property
    def curvature(self) -> Tensor:
        """The current (x, y) curvature, ``(2,)``, differentiable."""
        return self.max_curvature * self.raw.tanh()

    def forward(self, image: Tensor) -> Tensor:
        """Measure images ``(..., C, H, W)`` with H >= h and W >= w: ``(..., C, h, w)``."""
        _check_image(image, 3)
        height, width = self.size
        if image.shape[-2] < height or image.shape[-1] < width:
            raise ValueError(f"image must be at least as fine as the sensor {self.size}, got {tuple(image.shape)}")
        if self.shape == "curvilinear":
            return self._sample(image)
        curvature = self._curvature(image.dtype)
        x_edges = _warp(_edges(width, curvature), curvature[0], "rectangular")
        y_edges = _warp(_edges(height, curvature), curvature[1], "rectangular")
        return _box_average(image, x_edges, y_edges)

    def vertices(self) -> Tensor:
        """Corners of the pixels in the scene, ``(h + 1, w + 1, 2)``, order (x, y)."""
        curvature = self._curvature(self.raw.dtype)
        corners = _lattice(_edges(self.size[1], curvature), _edges(self.size[0], curvature))
        return _warp(corners, curvature, self.shape).to(self.raw.dtype)

    def rectify(self, features: Tensor, size: tuple[int, int], *, mode: str = "bilinear") -> Tensor:
        """Resample predictions made on the sensor onto the regular grid of the scene.

        Args:
            features: ``(..., C, h, w)`` covering the whole sensor, at its resolution or any other. Integers (labels)
                are allowed with mode "nearest".
            size: (height, width) of the result.
            mode: "bilinear", "nearest" or "bicubic", as in ``grid_sample``.

        Returns:
            ``(..., C, *size)`` in the dtype of ``features``; differentiable in features and curvature.
        """
        if mode not in ("bilinear", "nearest", "bicubic"):
            raise ValueError(f'mode must be "bilinear", "nearest" or "bicubic", got {mode!r}')
        if mode != "nearest" or features.is_complex():
            _check_image(features, 3, "features")
        elif features.ndim < 3:
            raise ValueError(f"features must have at least 3 dimensions, got shape {tuple(features.shape)}")
        if min(size) < 1:
            raise ValueError(f"size must be at least 1 in both directions, got {size}")
        values = features if features.is_floating_point() else features.double()
        curvature = self._curvature(values.dtype)
        grid = _unwarp(_lattice(_centers(size[1], curvature), _centers(size[0], curvature)), curvature, self.shape)
        return _read(values, grid, mode).to(features.dtype)

    def extra_repr(self) -> str:
        return f"size={self.size}, shape={self.shape!r}, max_curvature={self.max_curvature}, samples={self.samples}"

    def _curvature(self, dtype: torch.dtype) -> Tensor:
        return _geometry(self.raw, dtype).tanh() * self.max_curvature

    def _sample(self, image: Tensor) -> Tensor:
        curvature = self._curvature(image.dtype)
        height, width = (n * self.samples for n in self.size)
        points = _lattice(_centers(width, curvature), _centers(height, curvature))
        radius = torch.linalg.vector_norm(points, dim=-1, keepdim=True)
        gain, slope = _gain(radius, curvature), _slope(radius, curvature)
        # det J = g_s g_t + (x² g_s' g_t + y² g_t' g_s)/r; no sample has a smaller radius than 0, and there x² = 0
        stretch = (points.square() * slope * gain.flip(-1)).sum(-1) / radius.squeeze(-1).clamp_min(_tiny(radius))
        area = (gain.prod(-1) + stretch)[None]
        total = F.avg_pool2d(area, self.samples)
        weight = area / total.repeat_interleave(self.samples, 1).repeat_interleave(self.samples, 2)
        values = _read(image, points * gain, "bilinear")
        mean = F.avg_pool2d((values * weight.to(values.dtype)).reshape(-1, height, width), self.samples)
        return mean.reshape(*image.shape[:-2], *self.size).to(image.dtype)


def _gain(radius: Tensor, curvature: Tensor) -> Tensor:
    # g(r) = (1 - s)/(1 + s - 2 s r) with the denominator written so that g is exactly 1 from r = 1 on
    return (1 - curvature) / ((1 - curvature) + 2 * curvature * (1 - radius.clamp(max=1)))


def _slope(radius: Tensor, curvature: Tensor) -> Tensor:
    slope = 2 * curvature * _gain(radius, curvature).square() / (1 - curvature)
    return torch.where(radius < 1, slope, torch.zeros_like(slope))


def _warp(points: Tensor, curvature: Tensor, shape: Shape) -> Tensor:
    # both norms have derivative 0 at 0 in torch, which is what x g(r) needs there
    radius = points.abs() if shape == "rectangular" else torch.linalg.vector_norm(points, dim=-1, keepdim=True)
    return points * _gain(radius, curvature)


def _unwarp(points: Tensor, curvature: Tensor, shape: Shape) -> Tensor:
    if shape == "rectangular":
        return _warp(points, -curvature, shape)
    # near |curvature| = 1 single precision loses the root; Apple's devices have nothing better
    points, curvature = (v if v.device.type == "mps" else v.double() for v in (points, curvature))
    with torch.no_grad():
        radius = _solve_radius(points, curvature)
        gain, slope = _gain(radius, curvature), _slope(radius, curvature)
        start = points / gain
        # J = diag(g) + (u g') uᵀ/r: invert by Sherman and Morrison
        left, right = start * slope / gain, start / radius.clamp_min(_tiny(radius))
        scale = 1 + (left * right).sum(-1, keepdim=True)
    # u = u₀ - J⁻¹(φ(u₀) - X): no change in value, and the derivative of the inverse, at the centre too
    residual = (_warp(start, curvature, shape) - points) / gain
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
    tiny = _tiny(points)
    radius: Tensor = torch.where(ab > 0, aa / (ab + root).clamp_min(tiny), (root - ab) / (1 - bb).clamp_min(tiny))
    return radius.clamp_max(1)  # beyond the unit circle the root is larger, and nothing moves


def _box_average(image: Tensor, x_edges: Tensor, y_edges: Tensor) -> Tensor:
    rows = _box_weights(_geometry(y_edges, image.dtype), image.shape[-2]).to(image.dtype)
    columns = _box_weights(_geometry(x_edges, image.dtype), image.shape[-1]).to(image.dtype)
    count = math.prod(image.shape[:-2])
    # bmm on a view of the rows: broadcasting matmul would transpose and copy the images instead
    narrow = torch.bmm(rows.expand(count, -1, -1), image.reshape(count, *image.shape[-2:]))
    return (narrow @ columns.mT).reshape(*image.shape[:-2], len(rows), len(columns))


def _box_weights(edges: Tensor, n: int) -> Tensor:
    """Mean of each of the n clamped linear basis functions over each interval: ``(k + 1,)`` to ``(k, n)``."""
    position = (edges + 1) * (n / 2)
    center = torch.arange(n, device=edges.device, dtype=edges.dtype) + 0.5
    distance = (position[:, None] - center).clamp(-1, 1)
    before = distance.clamp(max=0)
    after = distance - before  # not a second clamp: at distance 0 the gradient must be counted once
    rising = (center > 1).to(edges.dtype)  # the first function is flat before its pixel's centre, the last behind it
    falling = (center < n - 1).to(edges.dtype)
    # integrals over the rising and the falling side, as products: thin intervals lose no digits to cancellation
    rise = before.diff(dim=0) * (1 + rising * (before[1:] + before[:-1]) / 2)
    fall = after.diff(dim=0) * (1 - falling * (after[1:] + after[:-1]) / 2)
    return (rise + fall) / position.diff()[:, None]


def _read(image: Tensor, grid: Tensor, mode: str) -> Tensor:
    # the points are the same for all images: fold every leading dimension into the channels
    dtype = torch.promote_types(image.dtype, torch.float32)  # half precision cannot address the pixels of a row
    folded = image.reshape(1, -1, *image.shape[-2:]).to(dtype)
    values = F.grid_sample(folded, grid[None].to(dtype), mode=mode, padding_mode="border", align_corners=False)
    return values.reshape(*image.shape[:-2], *grid.shape[:-1])


def _geometry(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    # coordinates need at least float32, whatever the images are stored in
    return tensor.to(torch.promote_types(torch.promote_types(tensor.dtype, dtype), torch.float32))


def _edges(n: int, like: Tensor) -> Tensor:
    return torch.arange(-n, n + 1, 2, device=like.device, dtype=like.dtype) / n


def _centers(n: int, like: Tensor) -> Tensor:
    return torch.arange(1 - n, n, 2, device=like.device, dtype=like.dtype) / n


def _lattice(x: Tensor, y: Tensor) -> Tensor:
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def _tiny(tensor: Tensor) -> float:
    return torch.finfo(tensor.dtype).tiny


def _check_shape(shape: str) -> None:
    if shape not in ("rectangular", "curvilinear"):
        raise ValueError(f'shape must be "rectangular" or "curvilinear", got {shape!r}')


def _check_points(points: Tensor, curvature: Tensor, shape: str) -> tuple[Tensor, Tensor]:
    _check_shape(shape)
    if not points.is_floating_point():
        raise TypeError(f"points must be floating point, got {points.dtype}")
    if points.ndim == 0 or points.shape[-1] != 2:
        raise ValueError(f"points must have shape (..., 2), got {tuple(points.shape)}")
    if curvature.shape != (2,):
        raise ValueError(f"curvature must have shape (2,), got {tuple(curvature.shape)}")
    if not torch.compiler.is_compiling() and not bool((curvature.abs() < 1).all()):
        raise ValueError(f"curvature must lie in (-1, 1), got {curvature.tolist()}")
    return _geometry(points, curvature.dtype), _geometry(curvature, points.dtype)


def _check_image(image: Tensor, dims: int, name: str = "image") -> None:
    if not image.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {image.dtype}")
    if image.ndim < dims:
        raise ValueError(f"{name} must have at least {dims} dimensions, got shape {tuple(image.shape)}")
