"""The loss that turns a denoiser into the proximal operator of the data's negative log-density (arXiv 2310.14344)."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from throughline.core.checks import check_floating

__all__ = ["ProximalMatchingLoss", "proximal_matching_loss", "proximal_matching_schedule"]

Reduction = Literal["mean", "sum", "none"]


def proximal_matching_loss(input: Tensor, target: Tensor, *, gamma: float, reduction: str = "mean") -> Tensor:
    """1 − exp(−‖x̂ − x‖²/γ²), with the norm over all of a sample: the smaller γ, the more its minimiser is the mode.

    "What's in a Prior? Learned Proximal Networks for Inverse Problems" (arXiv 2310.14344, eq. 3.4 and theorem 3.2). For
    y = x + σε its minimiser tends to prox_{−σ² log p}(y) as γ → 0. Far from the target (beyond several γ) it has no
    gradient: train with l1 before.

    Args:
        input: x̂, floating point, ``(B, ...)``.
        target: x, in the shape of ``input``.
        gamma: γ, positive, in the units of a sample's norm: for images it grows with the root of their size.
        reduction: "mean" or "sum" over the batch, or "none".

    Returns:
        A scalar, 0 of no samples, or ``(B,)``; in the dtype of ``input``, computed in float32 at least.

    Raises:
        TypeError: ``input`` or ``target`` is not floating point.
        ValueError: shapes differ, there is no batch dimension, or an argument is out of range.

    >>> proximal_matching_loss(torch.zeros(2, 3), torch.tensor([[0.0, 0, 0], [3, 0, 4]]), gamma=5.0, reduction="none")
    tensor([0.0000, 0.6321])
    """
    _check_loss(gamma, reduction)
    for name, tensor in (("input", input), ("target", target)):
        check_floating(name, tensor)
    if input.shape != target.shape or input.ndim < 1:
        raise ValueError(
            f"input and target must be (B, ...) of one shape, got {tuple(input.shape)} and {tuple(target.shape)}"
        )
    wide = torch.promote_types(input.dtype, torch.float32)  # the square of a small γ is lost in half precision
    squared = (input.to(wide) - target.to(wide)).square()
    squared = squared.flatten(1).sum(1) if squared.ndim > 1 else squared
    loss = -torch.expm1(squared * (-1 / gamma**2))
    if reduction != "none":
        loss = loss.mean() if reduction == "mean" and len(loss) else loss.sum()
    return loss.to(input.dtype)


class ProximalMatchingLoss(nn.Module):
    """`proximal_matching_loss` as a module; ``gamma`` may be set anew between stages of training.

    >>> ProximalMatchingLoss(0.5)(torch.ones(4, 2), torch.ones(4, 2))
    tensor(0.)
    """

    def __init__(self, gamma: float, *, reduction: str = "mean") -> None:
        super().__init__()
        _check_loss(gamma, reduction)
        self.gamma = gamma
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return proximal_matching_loss(input, target, gamma=self.gamma, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"gamma={self.gamma}, reduction={self.reduction!r}"


def proximal_matching_schedule(
    step: int, *, total: int, pretrain: int, stages: int = 4, gamma_min: float
) -> float | None:
    """γ of a training step: None while l1 pre-trains, then halved in equal stages down to ``gamma_min``.

    The schedule of "What's in a Prior?" (arXiv 2310.14344) for images: γ = γ_min · 2^(stages − 1 − stage), with
    total 40,000, pretrain 20,000 and γ_min = 0.08 √(channels · height · width).

    Args:
        step: from 0; from ``total`` on γ stays at its last value.
        total: steps of both phases, more than ``pretrain``.
        pretrain: steps with l1, at least 0.
        stages: at least 1.
        gamma_min: of the last stage, positive.

    Raises:
        ValueError: an argument is out of range.

    >>> [proximal_matching_schedule(t, total=8, pretrain=4, gamma_min=0.1) for t in (0, 3, 4, 5, 7)]
    [None, None, 0.8, 0.4, 0.1]
    """
    if step < 0:
        raise ValueError(f"step must be at least 0, got {step}")
    if not 0 <= pretrain < total:
        raise ValueError(f"pretrain must be from 0 to below total, got {pretrain} of {total}")
    if stages < 1:
        raise ValueError(f"stages must be at least 1, got {stages}")
    if not 0 < gamma_min < math.inf:
        raise ValueError(f"gamma_min must be positive and finite, got {gamma_min}")
    if step < pretrain:
        return None
    stage = min((step - pretrain) * stages // (total - pretrain), stages - 1)
    return float(gamma_min * 2 ** (stages - 1 - stage))


def _check_loss(gamma: float, reduction: str) -> None:
    if not 0 < gamma < math.inf:
        raise ValueError(f"gamma must be positive and finite, got {gamma}")
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction must be one of {', '.join(get_args(Reduction))}, got {reduction!r}")
