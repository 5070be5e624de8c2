"""Buckets of weights, their scales, and the symbols of quantised ones ("Model compression via distillation and
quantization", arXiv 1802.05668): what quantising a tensor and storing a model have in common.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from throughline.core.checks import readable

__all__ = [
    "Codes",
    "check_range",
    "encode",
    "extent",
    "in_rows",
    "nearest_level",
    "nearest_point",
    "out_of_rows",
    "placed",
]

FLAT = 1e-10  # buckets of a smaller range are scaled by 1, as the authors do


class Codes(NamedTuple):
    """A quantised tensor as it is stored: ``points[symbol] * scale + offset``, bucket by bucket."""

    symbols: Tensor  # (weights,) uint8, or int32 with more than 256 levels
    levels: int
    bucket_size: int
    offset: Tensor  # (buckets,)
    scale: Tensor  # (buckets,); the distance of two levels where there are no points
    points: Tensor | None  # (levels,) in rising order; without, a symbol is its own point

    def values(self) -> Tensor:
        """The quantised weights, flat, in the dtype of the scale."""
        symbols = self.symbols.int()
        x = symbols if self.points is None else self.points.index_select(0, symbols)
        rows = in_rows(x.to(self.scale.dtype), self.bucket_size)
        return placed(rows, self.offset[:, None], self.scale[:, None]).flatten()[: len(symbols)]


def encode(weight: Tensor, grid: int | Tensor, bucket_size: int | None, name: str = "weight") -> Codes:
    """What `uniform_quantize` gives with ``grid`` levels, or `nonuniform_quantize` with ``grid`` as points."""
    rows = in_rows(weight.detach(), bucket_size)
    low, span = extent(rows)
    check_range(span, name)
    if isinstance(grid, int):
        levels, points = grid, None
        scale = span / (levels - 1)
        symbols = nearest_level(rows, low, scale, levels, False, None)
    else:
        levels, points = len(grid), grid.detach().to(rows.dtype).sort().values
        symbols, scale = nearest_point(rows, low, span, points), span
    compact = symbols.flatten()[: weight.numel()].to(torch.uint8 if levels <= 256 else torch.int32)
    return Codes(compact, levels, rows.shape[1], low[:, 0], scale[:, 0], points)


def in_rows(weight: Tensor, bucket_size: int | None) -> Tensor:
    """``(buckets, bucket_size)``; the last bucket is filled up with its last value, which changes no extreme."""
    flat = weight.to(torch.promote_types(weight.dtype, torch.float32)).flatten()
    size = min(bucket_size or len(flat), len(flat))
    missing = -len(flat) % size
    return (torch.cat([flat, flat[-1:].expand(missing)]) if missing else flat).view(-1, size)


def out_of_rows(rows: Tensor, weight: Tensor) -> Tensor:
    """Rows without what fills the last one, in the shape and dtype of ``weight``."""
    flat = rows if rows.numel() == weight.numel() else rows.flatten()[: weight.numel()]
    return flat.view(weight.shape).to(weight.dtype)


def extent(rows: Tensor) -> tuple[Tensor, Tensor]:
    """β and α of every bucket, ``(buckets, 1)``; constants of the weights, without a gradient."""
    rows = rows.detach()
    low = rows.amin(1, keepdim=True)  # with amax several times as fast as torch.aminmax along a dimension
    span = rows.amax(1, keepdim=True).sub_(low)
    return low, span.masked_fill_(span < FLAT, 1.0)


def nearest_level(
    rows: Tensor, low: Tensor, step: Tensor, levels: int, stochastic: bool, generator: torch.Generator | None
) -> Tensor:
    """Numbers of levels as floating point, in a new tensor."""
    x = (rows - low).div_(step)
    if not stochastic:
        return x.round_()
    noise = torch.rand(x.shape, dtype=x.dtype, device=x.device, generator=generator)
    return x.add_(noise).floor_().clamp_(max=levels - 1)  # 3 + 0.99999999 is 4 in floating point


def nearest_point(rows: Tensor, low: Tensor, span: Tensor, points: Tensor) -> Tensor:
    """Numbers of the nearest of points in rising order, int32; on a mid-point that of the upper one."""
    x, middle = (rows - low).div_(span), (points[1:] + points[:-1]) / 2
    if x.device.type != "cpu":
        return torch.bucketize(x, middle, right=True, out_int32=True)
    # the same bit by bit: on a CPU, where branches that nobody can predict are slow, three times as fast and more
    bits = len(middle).bit_length()
    middle = torch.cat([middle, middle.new_full((2**bits - 1 - len(middle),), torch.inf)])
    flat = x.flatten()
    found = (flat >= middle[2 ** (bits - 1) - 1]).int().mul_(2 ** (bits - 1))
    for bit in range(bits - 2, -1, -1):
        found.add_(flat >= middle[2**bit - 1 :].index_select(0, found), alpha=2**bit)
    return found.view(x.shape)


def placed(x: Tensor, low: Tensor, scale: Tensor) -> Tensor:
    """x scale + β in place, and never fused: stored weights come back bit for bit."""
    return x.mul_(scale).add_(low)


def check_range(span: Tensor, name: str = "weight") -> None:
    if readable(span) and not span.isfinite().all():
        raise ValueError(f"{name} must be finite and so must be its range, got NaN, an infinity or too wide a range")
