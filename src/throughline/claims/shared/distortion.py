"""Distortions of pictures whose strength is each sample's own, for claims that learn it."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from throughline.claims.shared.pictures import grey

__all__ = ["cutout", "jittered", "moved", "noisy", "uniform"]


def moved(x: Tensor, shift: Tensor, rotation: Tensor, draw: torch.Generator) -> Tensor:
    """Images ``(B, c, h, w)`` turned by up to ``rotation`` degrees, shifted by up to ``shift`` pixels, each its own."""
    n, _, height, width = x.shape
    angle = rotation * math.pi / 180 * uniform(n, draw, x)
    across, down = (2 * shift / extent * uniform(n, draw, x) for extent in (width, height))
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack([cos, -sin, across, sin, cos, down], 1).view(n, 2, 3).to(x.dtype)
    return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


def noisy(x: Tensor, scale: Tensor, draw: torch.Generator) -> Tensor:
    """With normal noise of deviation ``scale``, one for each sample of ``(B, ...)``."""
    noise = torch.randn(x.shape, generator=draw).to(x.device)
    return x + scale.view(-1, *(1,) * (x.ndim - 1)) * noise


def jittered(x: Tensor, values: Mapping[str, Tensor], draw: torch.Generator) -> Tensor:
    """Brightness, contrast, saturation and hue of ``(B, 3, h, w)`` in [0, 1], each by up to its value, by sample.

    Hue is turned in the plane of the two colour differences, by up to its share of a full turn.
    """

    def factor(name: str) -> Tensor:
        return (values[name].to(x.dtype) * uniform(len(x), draw, x)).view(-1, 1, 1, 1)

    x = (x * (1 + factor("brightness"))).clamp(0, 1)
    mean = grey(x).mean((1, 2, 3), keepdim=True)
    x = (mean + (x - mean) * (1 + factor("contrast"))).clamp(0, 1)
    luma = grey(x)
    colour = (x - luma) * (1 + factor("saturation"))
    angle = 2 * math.pi * factor("hue")
    # a turn around the axis (1, 1, 1) keeps what is grey
    across = (colour.roll(1, 1) - colour.roll(-1, 1)) / math.sqrt(3)
    along = colour.mean(1, keepdim=True)
    turned = along + (colour - along) * angle.cos() + across * angle.sin()
    return (luma + turned).clamp(0, 1)


def cutout(x: Tensor, holes: Tensor, length: Tensor, draw: torch.Generator) -> Tensor:
    """Zero squares of ``length`` pixels at random centres, ``holes`` of them in each image of ``(B, c, h, w)``."""
    n, _, height, width = x.shape
    most = int(holes.max()) if len(holes) else 0
    rows, columns = (torch.rand(n, most, 1, generator=draw).to(x.device) * extent for extent in (height, width))
    half = (length / 2).view(-1, 1, 1).to(x.device)
    inside = [
        (torch.arange(extent, device=x.device) + 0.5 - centre).abs() <= half  # (B, most, extent)
        for centre, extent in ((rows, height), (columns, width))
    ]
    used = (torch.arange(most, device=x.device) < holes[:, None].to(x.device))[..., None, None]
    gone = (inside[0][..., :, None] & inside[1][..., None, :] & used).any(1)
    return x.masked_fill(gone[:, None], 0.0)


def uniform(n: int, draw: torch.Generator, like: Tensor) -> Tensor:
    """On ±1."""
    return (2 * torch.rand(n, generator=draw) - 1).to(like.device)
