"""Quantising one tensor, bucket by bucket, at evenly spaced levels or at points of its own.

"Model compression via distillation and quantization" (arXiv 1802.05668): weights are cut into buckets, scaled to [0, 1]
by the bucket's own minimum and range, and moved to the nearest level.
"""

from typing import Any

import torch
from torch import Tensor

from throughline.core.checks import check_floating, integer, readable
from throughline.core.relaxation import straight_through
from throughline.discrete.quantization.buckets import (
    check_range,
    extent,
    in_rows,
    nearest_level,
    nearest_point,
    out_of_rows,
    placed,
)

__all__ = ["nonuniform_quantize", "quantile_points", "uniform_quantize"]


def uniform_quantize(
    weight: Tensor,
    levels: int,
    *,
    bucket_size: int | None = 256,
    stochastic: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Round every weight to one of ``levels`` values between the minimum and the maximum of its bucket (section 2).

    With u = (v - β) / α, β the minimum of the bucket and α its range, Q(v) = α round(u (s - 1)) / (s - 1) + β. The
    gradient passes straight through to ``weight``. A constant bucket comes back unchanged. Time and
    memory are O(weights).

    Args:
        weight: floating point, of any shape, not empty; buckets run over it in row-major order.
        levels: s, at least 2; 2 to the number of bits.
        bucket_size: weights in a bucket, at least 1; None for a single bucket. The last one may be shorter.
        stochastic: round up with the probability that makes the result right on average, E Q(v) = v.
        generator: of the stochastic rounding.

    Returns:
        The shape and dtype of ``weight``, computed in float32 at least.

    Raises:
        TypeError: ``weight`` is not floating point, or a count is no integer.
        ValueError: ``weight`` is empty or not finite, or another argument is out of range.

    >>> uniform_quantize(torch.tensor([-1.0, -0.2, 0.3, 1.0]), 3)
    tensor([-1.,  0.,  0.,  1.])
    """
    levels, bucket_size = check_levels(levels), check_buckets(bucket_size)
    check_weight(weight)
    return round_to_levels(weight, levels, bucket_size, stochastic, generator, check=True)


def nonuniform_quantize(weight: Tensor, points: Tensor, *, bucket_size: int | None = 256) -> Tensor:
    """Move every weight to the nearest of ``points``, scaled to its bucket: Q(v, p) = α p_i + β (section 4).

    The gradient of a point is that of all the weights in its cell, ∂Q(v_j)/∂p_i = α of the bucket of v_j; to ``weight``
    it passes straight through. A weight in the middle between two points goes to the upper one. n weights take
    O(n log s) time and O(n) memory.

    Args:
        weight: floating point, of any shape, not empty.
        points: ``(s,)`` with s >= 2, floating point, in any order; [0, 1] covers a bucket.
        bucket_size: as for `uniform_quantize`.

    Returns:
        The shape and dtype of ``weight``, computed in float32 at least.

    Raises:
        TypeError: ``weight`` or ``points`` is not floating point, or ``bucket_size`` is no integer.
        ValueError: ``weight`` is empty, one of the two is not finite, or ``points`` has another shape.

    >>> points = torch.tensor([0.1, 0.5, 0.9], requires_grad=True)
    >>> nonuniform_quantize(torch.tensor([-1.0, -0.2, 0.3, 1.0]), points).sum().backward()
    >>> points.grad
    tensor([2., 4., 2.])
    """
    bucket_size = check_buckets(bucket_size)
    check_points(points)
    check_weight(weight)
    return round_to_points(weight, points, bucket_size, check=True)


def quantile_points(weight: Tensor, levels: int, *, bucket_size: int | None = 256) -> Tensor:
    """Points at evenly spaced quantiles of the scaled weights, so that every level is in use from the start.

    Args:
        weight, levels, bucket_size: as for `uniform_quantize`.

    Returns:
        ``(levels,)`` from 0 to 1 in rising order, in the dtype of ``weight`` but float32 at least.

    Raises:
        TypeError, ValueError: as `uniform_quantize`.

    >>> quantile_points(torch.tensor([0.0, 1.0, 2.0, 3.0, 10.0]), 3)
    tensor([0.0000, 0.2000, 1.0000])
    """
    levels, bucket_size = check_levels(levels), check_buckets(bucket_size)
    check_weight(weight)
    rows = in_rows(weight.detach(), bucket_size)
    low, span = extent(rows)
    check_range(span)
    ordered = ((rows - low) / span).flatten()[: weight.numel()].sort().values
    place = torch.linspace(0, weight.numel() - 1, levels, dtype=torch.float64, device=weight.device)
    below = place.floor()
    first = below.long()
    after = (first + 1).clamp(max=weight.numel() - 1)
    return ordered[first].lerp(ordered[after], (place - below).to(ordered.dtype))


def round_to_levels(
    weight: Tensor,
    levels: int,
    bucket_size: int | None,
    stochastic: bool,
    generator: torch.Generator | None,
    *,
    check: bool = False,
) -> Tensor:
    """`uniform_quantize` of arguments known to be good; without ``check`` nothing waits for a GPU."""
    rows = in_rows(weight, bucket_size)
    low, span = extent(rows)
    if check:
        check_range(span)
    step = span / (levels - 1)
    return out_of_rows(straight_through(_rounded, rows, low, step, levels, stochastic, generator), weight)


def round_to_points(weight: Tensor, points: Tensor, bucket_size: int | None, *, check: bool = False) -> Tensor:
    """`nonuniform_quantize` of arguments known to be good."""
    rows = in_rows(weight, bucket_size)
    low, span = extent(rows)
    if check:
        check_range(span)
    ordered = points.to(rows.dtype).sort().values
    x, _ = _Nonuniform.apply(rows, low, span, ordered)  # type: ignore[no-untyped-call]
    return out_of_rows(x, weight)


def _rounded(
    rows: Tensor, low: Tensor, step: Tensor, levels: int, stochastic: bool, generator: torch.Generator | None
) -> Tensor:
    return placed(nearest_level(rows, low, step, levels, stochastic, generator), low, step)


class _Nonuniform(torch.autograd.Function):
    """Quantised rows, and the numbers of their points."""

    generate_vmap_rule = True

    @staticmethod
    def forward(rows: Tensor, low: Tensor, span: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        symbols = nearest_point(rows, low, span, points)
        return placed(points.index_select(0, symbols.flatten()).view(rows.shape), low, span), symbols

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        _, _, span, points = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1], span)
        ctx.levels = len(points)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        if not ctx.needs_input_grad[3]:
            return grad, None, None, None
        symbols, span = ctx.saved_tensors
        scaled = grad * span  # what fills the last bucket was cut off: its gradient is zero
        if ctx.levels > symbols.shape[1]:  # a row of sums for every bucket would be more than the weights
            symbols, scaled = symbols.view(1, -1), scaled.view(1, -1)
        sums = scaled.new_zeros(len(symbols), ctx.levels).scatter_add(1, symbols.long(), scaled)
        return grad, None, None, sums.sum(0)


def check_levels(levels: int) -> int:
    if integer("levels", levels) < 2:
        raise ValueError(f"levels must be at least 2, got {levels}")
    return int(levels)


def check_buckets(bucket_size: int | None) -> int | None:
    if bucket_size is None:
        return None
    if integer("bucket_size", bucket_size, "an integer, or None") < 1:
        raise ValueError(f"bucket_size must be at least 1, or None, got {bucket_size}")
    return int(bucket_size)


def check_weight(weight: Tensor, name: str = "weight") -> None:
    check_floating(name, weight)
    if weight.numel() == 0:
        raise ValueError(f"{name} must not be empty, got shape {tuple(weight.shape)}")


def check_points(points: Tensor) -> None:
    check_floating("points", points)
    if points.ndim != 1 or len(points) < 2:
        raise ValueError(f"points must be one-dimensional and at least two, got shape {tuple(points.shape)}")
    if readable(points) and not points.isfinite().all():
        raise ValueError(f"points must be finite, got {points.tolist()}")
