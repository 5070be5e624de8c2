"""Soft confusion matrices of a binary classifier: sums of almost-labels ("AnyLoss: Transforming Classification Metrics
into Loss Functions", arXiv 2405.14745).
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from throughline.core.checks import check_floating, check_tensor, readable

__all__ = ["Confusion", "soft_confusion"]

Dims = tuple[int, ...] | None


class Confusion(NamedTuple):
    """Counts of a binary confusion matrix, hard or soft, each ``(...)``.

    >>> Confusion(*torch.tensor([3.0, 1.0, 2.0, 4.0])).fn
    tensor(2.)
    """

    tp: Tensor
    fp: Tensor
    fn: Tensor
    tn: Tensor


def soft_confusion(
    input: Tensor,
    target: Tensor,
    *,
    amplification: float | None = 73.0,
    from_logits: bool = True,
    weight: Tensor | None = None,
    dim: int | tuple[int, ...] | None = None,
) -> Confusion:
    """Confusion matrix whose counts are sums of A(p) = 1/(1 + exp(-L (p - 1/2))), p a predicted probability (eq. 1).

    The gradient dA/dz = L A (1 - A) p (1 - p) is evaluated without a subtraction that cancels, so that it keeps its
    relative accuracy for logits z of any size and in any precision. It is at most L/16, and tiny from \\|z\\| = 1 on.

    Args:
        input: logits z, or p in [0, 1] with ``from_logits=False``; floating point, of any shape.
        target: labels of the same shape: 0 and 1 in any dtype, or soft ones in [0, 1].
        amplification: L, positive and finite; None counts the probabilities themselves.
        from_logits: whether ``input`` holds logits.
        weight: of each sample, finite and not negative, broadcastable to ``input``.
        dim: what to sum over; everything by default, so that ``(N,)`` and ``(N, 1, H, W)`` both give one matrix.

    Returns:
        Four tensors of what ``dim`` leaves of the shape, in the dtype of ``input``, or float32 where that is shorter
        (half precision cannot count). Differentiable in ``input``, ``target`` and ``weight``, twice.

    Raises:
        TypeError: ``input`` is not floating point, or something is no tensor.
        ValueError: shapes that differ (none is broadcast but that of ``weight``), an empty ``input``, or values out of
            range. Reading values waits for the device; a compiled call does not look at them.

    >>> soft_confusion(torch.tensor([9.0, 8.0, -9.0]), torch.tensor([1, 0, 0])).tn
    tensor(1.)
    """
    check_options(amplification)
    _check(input, target, weight, from_logits)
    return count(input, target, amplification, from_logits=from_logits, weight=weight, dim=dim)


def count(
    input: Tensor,
    target: Tensor,
    amplification: float | None,
    *,
    from_logits: bool = True,
    weight: Tensor | None = None,
    dim: int | tuple[int, ...] | None = None,
) -> Confusion:
    """`soft_confusion` of arguments that are known to be good."""
    wide = torch.promote_types(input.dtype, torch.float32)
    dims = (dim,) if isinstance(dim, int) else dim or None
    kind = _TracedCounts if _transformed() else _Counts
    weight = None if weight is None else weight.to(wide)
    counts = kind.apply(input, target.to(wide), weight, amplification, from_logits, dims)  # type: ignore[no-untyped-call]
    return Confusion(*(counts if dims is None else (one.squeeze(dims) for one in counts)))


def check_options(amplification: float | None) -> None:
    if amplification is not None and not 0 < amplification < math.inf:
        raise ValueError(f"amplification must be positive and finite, or None, got {amplification}")


def _gradients(ctx: Any, tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> tuple[Tensor | None, ...]:
    x, y, w = ctx.saved_tensors
    need_x, need_y, need_w, *_ = ctx.needs_input_grad
    by_x = by_y = by_w = None
    p = x.to(y.dtype)
    if need_x:
        if torch.is_grad_enabled() or _transformed():
            by_x = ((1 - y) * (fp - tn) + y * (tp - fn)) * _slope(p, ctx.steepness, ctx.from_logits)
        else:  # not by lerp, which is slow, nor as y (a - b) + b, which is inexact where b is the larger
            by_x = _quick_slope(p, ctx.steepness, ctx.from_logits)
            by_x.mul_((1 - y).mul_(fp - tn).add_(y * (tp - fn)))
        by_x = (by_x if w is None else by_x * w).to(x.dtype)
    if need_y or need_w:
        positive, negative = _soft_labels(p, ctx.steepness, ctx.from_logits)
    if need_y:
        by_y = positive * (tp - fp) + negative * (fn - tn)
        by_y = by_y if w is None else by_y * w
    if need_w:
        by_w = y * (positive * tp + negative * fn) + (1 - y) * (positive * fp + negative * tn)
        by_w = by_w.sum_to_size(w.shape)
    return by_x, by_y, by_w, None, None, None


class _Counts(torch.autograd.Function):
    """(TP, FP, FN, TN) of eq. 4 with the summed dimensions kept.

    Autograd through eq. 1 would store and sweep much more. The quick paths reuse buffers, since a fresh one costs more
    than the arithmetic on it; the plain ones can be differentiated, batched and traced.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, w: Tensor | None, steepness: float | None, from_logits: bool, dims: Dims
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x, y, w)
        ctx.steepness, ctx.from_logits = steepness, from_logits
        return _quick_sums(y, w, *_quick_soft_labels(x.to(y.dtype), steepness, from_logits), dims)

    backward = staticmethod(_gradients)


class _TracedCounts(torch.autograd.Function):
    """The same for torch.func and torch.compile; its calls have more overhead."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, y: Tensor, w: Tensor | None, steepness: float | None, from_logits: bool, dims: Dims
    ) -> tuple[Tensor, ...]:
        return _sums(y, w, *_soft_labels(x.to(y.dtype), steepness, from_logits), dims)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, y, w, ctx.steepness, ctx.from_logits, _ = inputs
        ctx.save_for_backward(x, y, w)

    backward = staticmethod(_gradients)


def _transformed() -> bool:
    """Whether torch.compile or torch.func is at work: values cannot be read, nor all buffers written."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def _sums(y: Tensor, w: Tensor | None, positive: Tensor, negative: Tensor, dims: Dims) -> tuple[Tensor, ...]:
    own, other = (y, 1 - y) if w is None else (w * y, w * (1 - y))
    return tuple(_sum(part, dims) for part in (own * positive, other * positive, own * negative, other * negative))


def _quick_sums(y: Tensor, w: Tensor | None, positive: Tensor, negative: Tensor, dims: Dims) -> tuple[Tensor, ...]:
    if w is not None:
        positive, negative = positive.mul_(w), negative.mul_(w)
    part = y * positive
    tp, fp = _sum(part, dims), _sum(positive.sub_(part), dims)
    part.copy_(y).mul_(negative)
    return tp, fp, _sum(part, dims), _sum(negative.sub_(part), dims)


def _sum(part: Tensor, dims: Dims) -> Tensor:
    return part.sum() if dims is None else part.sum(dims, keepdim=True)


def _soft_labels(p: Tensor, steepness: float | None, from_logits: bool) -> tuple[Tensor, Tensor]:
    """A and 1 - A."""
    if steepness is None:
        return (p.sigmoid(), (-p).sigmoid()) if from_logits else (p, 1 - p)
    s = steepness * ((p.sigmoid() if from_logits else p) - 0.5)
    return s.sigmoid(), (-s).sigmoid()


def _quick_soft_labels(p: Tensor, steepness: float | None, from_logits: bool) -> tuple[Tensor, Tensor]:
    if steepness is None:
        return (p.sigmoid(), p.neg().sigmoid_()) if from_logits else (p.clone(), 1 - p)
    s = (p.sigmoid().sub_(0.5) if from_logits else p - 0.5).mul_(steepness)
    return s.sigmoid(), s.neg_().sigmoid_()


def _slope(p: Tensor, steepness: float | None, from_logits: bool) -> Tensor:
    """dA/dz = L σ(s) σ(-s) σ(z) σ(-z), or dA/dp, by operations that autograd can differentiate again."""
    outer = torch.ones_like(p)
    if steepness is not None:
        positive, negative = _soft_labels(p, steepness, from_logits)
        outer = steepness * positive * negative
    return outer * p.sigmoid() * (-p).sigmoid() if from_logits else outer


def _quick_slope(p: Tensor, steepness: float | None, from_logits: bool) -> Tensor:
    """The same by one sigmoid in place of two: with q = σ(-|z|) <= 1/2, q (1 - q) is q - q² to full accuracy."""
    if steepness is None and not from_logits:
        return torch.ones_like(p)
    q = p.abs().neg_().sigmoid_() if from_logits else (p - 0.5).abs_().neg_().add_(0.5)
    if steepness is None:
        return q.addcmul_(q, q, value=-1)
    u = (q - 0.5).mul_(steepness).sigmoid_()  # s is odd in z: -|s| = L (q - 1/2)
    u.addcmul_(u, u, value=-1).mul_(steepness)
    return u.mul_(q.addcmul_(q, q, value=-1)) if from_logits else u


def _check(input: Tensor, target: Tensor, weight: Tensor | None, from_logits: bool) -> None:
    check_floating("input", input)
    check_tensor("target", target)
    if weight is not None:
        check_tensor("weight", weight)
    if input.shape != target.shape:
        raise ValueError(
            f"input and target must have one shape, got input {tuple(input.shape)} and target {tuple(target.shape)}"
        )
    if input.numel() == 0:
        raise ValueError(f"input must not be empty, got shape {tuple(input.shape)}")
    if weight is not None and not _fits(weight.shape, input.shape):
        raise ValueError(f"weight must broadcast to {tuple(input.shape)}, got shape {tuple(weight.shape)}")
    if not readable(input):
        return
    ranges = [("target", target, 1.0, "in [0, 1]")]
    if not from_logits:
        ranges.append(("input", input, 1.0, "probabilities in [0, 1] with from_logits=False"))
    if weight is not None:
        ranges.append(("weight", weight, torch.finfo(torch.float64).max, "finite and not negative"))
    ends = [torch.stack(torch.aminmax(values.detach())).double() for _, values, _, _ in ranges]
    for (name, _, most, wanted), (low, high) in zip(ranges, torch.stack(ends).tolist(), strict=True):
        if not (low >= 0 and high <= most):  # so that NaN is out of range
            raise ValueError(f"{name} must be {wanted}, got values from {low:g} to {high:g}")


def _fits(shape: torch.Size, full: torch.Size) -> bool:
    ends = zip(reversed(shape), reversed(full), strict=False)
    return len(shape) <= len(full) and all(own in (1, other) for own, other in ends)
