"""Random views of small pictures, for training on them."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from throughline.claims.shared.pictures import grey

__all__ = ["affine_view", "photo_view", "shifted_and_mirrored"]


def shifted_and_mirrored(x: Tensor, draw: torch.Generator) -> Tensor:
    """Images ``(n, c, h, w)`` shifted by up to four pixels, half of them mirrored."""
    n, _, height, width = x.shape
    top, left = torch.randint(9, (2, n), generator=draw).to(x.device)
    mirrored = (torch.rand(n, generator=draw) < 0.5).to(x.device)
    rows = top[:, None] + torch.arange(height, device=x.device)
    columns = torch.arange(width, device=x.device)
    columns = left[:, None] + torch.where(mirrored[:, None], columns.flip(0), columns)
    each = torch.arange(n, device=x.device)[:, None, None]
    return F.pad(x, (4, 4, 4, 4)).movedim(1, -1)[each, rows[:, :, None], columns[:, None]].movedim(-1, 1)


def affine_view(x: Tensor, draw: torch.Generator) -> Tensor:
    """Rotate by up to 15°, scale 0.7 to 1.3 (aspect 0.85 to 1.15), shear and shift images ``(n, c, h, w)``."""
    angle, scale, aspect, shear = _uniform(len(x), draw, (-15, 15), (0.7, 1.3), (0.85, 1.15), (-0.3, 0.3))
    angle = angle * (math.pi / 180)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(-1, 2, 2)
    stretch = torch.zeros(len(x), 2, 2)
    stretch[:, 0, 0], stretch[:, 0, 1], stretch[:, 1, 1] = scale * aspect.sqrt(), shear, scale / aspect.sqrt()
    shift = torch.stack(_uniform(len(x), draw, (-0.2, 0.2), (-0.2, 0.2)), -1)
    return _warped(x, torch.cat([turn @ stretch, shift[..., None]], -1))


def photo_view(x: Tensor, draw: torch.Generator) -> Tensor:
    """Random resized crop (20 to 100 % of the area), flip, colour jitter and grey, of images ``(n, 3, h, w)``."""
    area, ratio, left, top = _uniform(len(x), draw, (0.2, 1), (math.log(3 / 4), math.log(4 / 3)), (-1, 1), (-1, 1))
    width = (area * ratio.exp()).sqrt().clamp(max=1)
    height = (area / ratio.exp()).sqrt().clamp(max=1)
    mirror, colourless, jitter = (
        u < p for u, p in zip(_uniform(len(x), draw, *[(0, 1)] * 3), (0.5, 0.2, 0.8), strict=True)
    )
    theta = torch.zeros(len(x), 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = torch.where(mirror, -width, width), left * (1 - width)
    theta[:, 1, 1], theta[:, 1, 2] = height, top * (1 - height)
    view = _warped(x, theta, "border")
    bright, contrast, saturation = (
        torch.where(jitter, u, 1.0).view(-1, 1, 1, 1) for u in _uniform(len(x), draw, *[(0.6, 1.4)] * 3)
    )
    view = (view * bright).clamp(0, 1)
    view = torch.lerp(grey(view).mean((2, 3), keepdim=True), view, contrast).clamp(0, 1)
    saturation = torch.where(colourless.view(-1, 1, 1, 1), 0.0, saturation)
    return torch.lerp(grey(view), view, saturation).clamp(0, 1)


def _uniform(n: int, draw: torch.Generator, *ranges: tuple[float, float]) -> tuple[Tensor, ...]:
    return tuple(torch.rand(n, generator=draw) * (high - low) + low for low, high in ranges)


def _warped(x: Tensor, theta: Tensor, padding: str = "zeros") -> Tensor:
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode=padding, align_corners=False)
