"""The layer: a sensor whose pixel grid is learned."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.core.checks import check_tensor, integer
from throughline.sensing.layout.boxes import averaged, check_image
from throughline.sensing.layout.warp import Shape, check_shape, geometry, smallest, unwarp, warp, warp_gain, warp_slope

__all__ = ["SensorLayout"]


class SensorLayout(nn.Module):
    """A sensor whose pixel grid is learned: what each bent pixel measures of a high-resolution image (eq. 1).

    A pixel's value is the mean radiance over its area: exact for rectangular layouts, ``samples`` × ``samples``
    midpoints per pixel weighted by the warp's Jacobian determinant for curvilinear ones. Deterministic, in training as
    in evaluation; gradients reach the layout and the image. ``requires_grad_(False)`` makes a fixed layout, with zero
    curvature the uniform sensor. Time and memory are O(pixels) of the image.

    Args:
        size: sensor pixels, (height, width) or one number for both.
        shape: "rectangular" or "curvilinear".
        curvature: initial (x, y), each smaller than ``max_curvature`` in absolute value.
        max_curvature: bound c in curvature = c · tanh(raw), in (0, 1).
        samples: midpoints per pixel and direction, curvilinear only.

    Attributes:
        raw: the parameter that is learned, ``(2,)``: curvature is c · tanh(raw).

    Raises:
        ValueError: an argument is out of range.
        TypeError: ``size`` is no whole number, nor two.

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
        check_shape(shape)
        sides = _pair(size)
        if samples < 1:
            raise ValueError(f"samples must be at least 1, got {samples}")
        if not 0 < max_curvature < 1:
            raise ValueError(f"max_curvature must lie in (0, 1), got {max_curvature}")
        if len(curvature) != 2 or not all(abs(c) < max_curvature for c in curvature):
            raise ValueError(
                f"curvature must be two numbers smaller than max_curvature={max_curvature} in size, got {curvature}"
            )
        self.size = sides
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
        check_image(image, 3)
        height, width = self.size
        if image.shape[-2] < height or image.shape[-1] < width:
            raise ValueError(f"image must be at least as fine as the sensor {self.size}, got {tuple(image.shape)}")
        if self.shape == "curvilinear":
            return self._sample(image)
        curvature = self._curvature(image.dtype)
        x_edges = warp(_edges(width, curvature), curvature[0], "rectangular")
        y_edges = warp(_edges(height, curvature), curvature[1], "rectangular")
        return averaged(image, x_edges, y_edges)

    def vertices(self) -> Tensor:
        """Corners of the pixels in the scene, ``(h + 1, w + 1, 2)``, order (x, y)."""
        curvature = self._curvature(self.raw.dtype)
        corners = _lattice(_edges(self.size[1], curvature), _edges(self.size[0], curvature))
        return warp(corners, curvature, self.shape).to(self.raw.dtype)

    def rectify(self, features: Tensor, size: int | tuple[int, int], *, mode: str = "bilinear") -> Tensor:
        """Resample predictions made on the sensor onto the regular grid of the scene.

        Args:
            features: ``(..., C, h, w)`` covering the whole sensor, at its resolution or any other. Integers (labels)
                are allowed with mode "nearest".
            size: (height, width) of the result, or one number for both.
            mode: "bilinear", "nearest" or "bicubic", as in ``grid_sample``.

        Returns:
            ``(..., C, *size)`` in the dtype of ``features``; differentiable in features and curvature.
        """
        if mode not in ("bilinear", "nearest", "bicubic"):
            raise ValueError(f'mode must be "bilinear", "nearest" or "bicubic", got {mode!r}')
        check_tensor("features", features)
        if mode != "nearest" or features.is_complex():
            check_image(features, 3, "features")
        elif features.ndim < 3:
            raise ValueError(f"features must have at least 3 dimensions, got shape {tuple(features.shape)}")
        height, width = _pair(size)
        values = features if features.is_floating_point() else features.double()
        curvature = self._curvature(values.dtype)
        grid = unwarp(_lattice(_centers(width, curvature), _centers(height, curvature)), curvature, self.shape)
        return _read(values, grid, mode).to(features.dtype)

    def extra_repr(self) -> str:
        return f"size={self.size}, shape={self.shape!r}, max_curvature={self.max_curvature}, samples={self.samples}"

    def _curvature(self, dtype: torch.dtype) -> Tensor:
        return geometry(self.raw, dtype).tanh() * self.max_curvature

    def _sample(self, image: Tensor) -> Tensor:
        curvature = self._curvature(image.dtype)
        height, width = (n * self.samples for n in self.size)
        points = _lattice(_centers(width, curvature), _centers(height, curvature))
        radius = torch.linalg.vector_norm(points, dim=-1, keepdim=True)
        gain, slope = warp_gain(radius, curvature), warp_slope(radius, curvature)
        # det J = g_s g_t + (x² g_s' g_t + y² g_t' g_s)/r; no sample has a smaller radius than 0, and there x² = 0
        stretch = (points.square() * slope * gain.flip(-1)).sum(-1) / radius.squeeze(-1).clamp_min(smallest(radius))
        area = (gain.prod(-1) + stretch)[None]
        total = F.avg_pool2d(area, self.samples)
        weight = area / total.repeat_interleave(self.samples, 1).repeat_interleave(self.samples, 2)
        values = _read(image, points * gain, "bilinear")
        mean = F.avg_pool2d((values * weight.to(values.dtype)).reshape(-1, 1, height, width), self.samples)
        return mean.reshape(*image.shape[:-2], *self.size).to(image.dtype)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = size if isinstance(size, Sequence) and len(size) == 2 else (size, size)
    height, width = (integer("size", n, "one or two whole numbers of pixels") for n in (height, width))
    if height < 1 or width < 1:
        raise ValueError(f"size must be at least 1 in both directions, got {size}")
    return height, width


def _read(image: Tensor, grid: Tensor, mode: str) -> Tensor:
    # the points are the same for all images: fold every leading dimension into the channels
    dtype = torch.promote_types(image.dtype, torch.float32)  # half precision cannot address the pixels of a row
    folded = image.reshape(1, -1, *image.shape[-2:]).to(dtype)
    values = F.grid_sample(folded, grid[None].to(dtype), mode=mode, padding_mode="border", align_corners=False)
    return values.reshape(*image.shape[:-2], *grid.shape[:-1])


def _edges(n: int, like: Tensor) -> Tensor:
    return torch.arange(-n, n + 1, 2, device=like.device, dtype=like.dtype) / n


def _centers(n: int, like: Tensor) -> Tensor:
    return torch.arange(1 - n, n, 2, device=like.device, dtype=like.dtype) / n


def _lattice(x: Tensor, y: Tensor) -> Tensor:
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
