"""Densities of outcomes that are constant on bars."""

import torch
from torch import Tensor, nn

from throughline.core.checks import check_floating, check_tensor

__all__ = ["BarDistribution"]


class BarDistribution(nn.Module):
    """A density that is constant on bars: softmax of K logits over the widths of the bars.

    The output distribution of "End-to-End Meta-Bayesian Optimisation with Transformer Neural Processes" (arXiv
    2305.15930) and of prior-fitted networks. Keep it in float32 or wider: in bfloat16 narrow bars have no width. Under
    autocast results have the dtype of the bars and logits all the same. NaN in gives NaN out.

    Args:
        borders: ``(K + 1,)``, increasing and finite; a buffer.

    Raises:
        TypeError: ``borders`` is no floating point tensor; in a method, logits or outcomes are none.
        ValueError: ``borders`` is not of that kind; in a method, shapes do not fit.

    >>> bars = BarDistribution(torch.linspace(0, 1, 5))
    >>> bars.log_prob(torch.zeros(3, 4), torch.tensor([0.1, 1.0, 7.0])).exp()  # uniform on [0, 1]
    tensor([1., 1., 1.])
    >>> bars.expected_improvement(torch.zeros(1, 2, 4), torch.tensor([0.5]))  # (1 - 0.5)² / 2
    tensor([[0.1250, 0.1250]])
    """

    borders: Tensor

    def __init__(self, borders: Tensor) -> None:
        super().__init__()
        check_floating("borders", borders)
        if borders.ndim != 1 or len(borders) < 2 or not bool(borders.isfinite().all() & (borders.diff() > 0).all()):
            raise ValueError(f"borders must be (K + 1,), increasing and finite, got shape {tuple(borders.shape)}")
        self.register_buffer("borders", borders.detach().clone())

    def log_prob(self, logits: Tensor, y: Tensor) -> Tensor:
        """Log-density of ``y``: ``(..., K)`` and ``(...)`` to ``(...)``.

        A border belongs to the bar above it. Outside the borders ``y`` counts for the nearest bar.
        """
        self._check(logits)
        check_floating("y", y)
        if y.shape != logits.shape[:-1]:
            raise ValueError(f"y must be {tuple(logits.shape[:-1])} like logits, got {tuple(y.shape)}")
        bar = torch.bucketize(y.detach().contiguous(), self.borders[1:-1].to(y.dtype), right=True)
        log_density = logits.log_softmax(-1) - self.borders.diff().log()
        found = log_density.gather(-1, bar.unsqueeze(-1)).squeeze(-1)
        return found.masked_fill(y.isnan(), torch.nan)

    def mean(self, logits: Tensor) -> Tensor:
        """Expectation: ``(..., K)`` to ``(...)``."""
        self._check(logits)
        return (self._weights(logits) * self._middles()).sum(-1)

    def variance(self, logits: Tensor) -> Tensor:
        """Variance, of the bars' middles and of what is inside each bar: ``(..., K)`` to ``(...)``."""
        self._check(logits)
        inside = self.borders.diff().square() / 12
        spread = (self._middles() - self.mean(logits).unsqueeze(-1)).square()
        return (self._weights(logits) * (spread + inside)).sum(-1)

    def expected_improvement(self, logits: Tensor, best: Tensor) -> Tensor:
        """E max(y − best, 0) under the density, exactly: ``(B, m, K)`` and ``(B,)`` to ``(B, m)``."""
        self._check(logits)
        check_tensor("best", best)
        if logits.ndim != 3 or best.shape != logits.shape[:1]:
            raise ValueError(
                f"logits must be (B, m, K) and best (B,), got {tuple(logits.shape)} and {tuple(best.shape)}"
            )
        low, high = self.borders[:-1], self.borders[1:]
        start = torch.maximum(low, best.unsqueeze(-1))  # (B, K): where the bar begins to improve
        share = (high - start).clamp_min(0) / (high - low)
        gain = share * ((high + start) / 2 - best.unsqueeze(-1))
        with torch.autocast(logits.device.type, enabled=False):
            return (self._weights(logits) @ gain.unsqueeze(-1)).squeeze(-1)

    def _weights(self, logits: Tensor) -> Tensor:
        return logits.to(torch.promote_types(logits.dtype, self.borders.dtype)).softmax(-1)

    def _middles(self) -> Tensor:
        return (self.borders[1:] + self.borders[:-1]) / 2

    def _check(self, logits: Tensor) -> None:
        check_floating("logits", logits)
        if logits.shape[-1:] != (len(self.borders) - 1,):
            raise ValueError(f"logits must be (..., {len(self.borders) - 1}), got {tuple(logits.shape)}")
