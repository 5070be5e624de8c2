"""Densities of outcomes that are constant on bars."""

import torch
from torch import Tensor, nn

__all__ = ["BarDistribution"]


class BarDistribution(nn.Module):
    """A density that is constant on bars: softmax of K logits over the widths of the bars.

    The output distribution of "End-to-End Meta-Bayesian Optimisation with Transformer Neural Processes" (arXiv
    2305.15930) and of prior-fitted networks. Keep it in float32 or wider, as under autocast: in bfloat16 narrow bars
    have no width.

    Args:
        borders: ``(K + 1,)``, increasing and finite; a buffer.

    Raises:
        ValueError: ``borders`` is not of that kind.

    >>> bars = BarDistribution(torch.linspace(0, 1, 5))
    >>> bars.log_prob(torch.zeros(3, 4), torch.tensor([0.1, 1.0, 7.0])).exp()  # uniform on [0, 1]
    tensor([1., 1., 1.])
    >>> bars.expected_improvement(torch.zeros(1, 2, 4), torch.tensor([0.5]))  # (1 - 0.5)² / 2
    tensor([[0.1250, 0.1250]])
    """

    borders: Tensor

    def __init__(self, borders: Tensor) -> None:
        super().__init__()
        if borders.ndim != 1 or len(borders) < 2 or not bool(borders.isfinite().all() & (borders.diff() > 0).all()):
            raise ValueError(f"borders must be (K + 1,), increasing and finite, got shape {tuple(borders.shape)}")
        self.register_buffer("borders", borders.detach().clone())

    def log_prob(self, logits: Tensor, y: Tensor) -> Tensor:
        """Log-density of ``y``: ``(..., K)`` and ``(...)`` to ``(...)``.

        A border belongs to the bar above it. Outside the borders ``y`` counts for the nearest bar.
        """
        self._check(logits)
        if y.shape != logits.shape[:-1]:
            raise ValueError(f"y must be {tuple(logits.shape[:-1])} like logits, got {tuple(y.shape)}")
        bar = torch.bucketize(y.detach().contiguous(), self.borders[1:-1].to(y.dtype), right=True)
        log_density = logits.log_softmax(-1) - self.borders.diff().log()
        return log_density.gather(-1, bar.unsqueeze(-1)).squeeze(-1)

    def mean(self, logits: Tensor) -> Tensor:
        """Expectation: ``(..., K)`` to ``(...)``."""
        self._check(logits)
        return logits.softmax(-1) @ self._middles()

    def variance(self, logits: Tensor) -> Tensor:
        """Variance of the bars' middles, which leaves out what is inside a bar: ``(..., K)`` to ``(...)``."""
        self._check(logits)
        p = logits.softmax(-1)
        mean = (p @ self._middles()).unsqueeze(-1)
        return (p * (self._middles() - mean).square()).sum(-1)

    def expected_improvement(self, logits: Tensor, best: Tensor) -> Tensor:
        """E max(y − best, 0) under the density, exactly: ``(B, m, K)`` and ``(B,)`` to ``(B, m)``."""
        self._check(logits)
        if logits.ndim != 3 or best.shape != logits.shape[:1]:
            raise ValueError(
                f"logits must be (B, m, K) and best (B,), got {tuple(logits.shape)} and {tuple(best.shape)}"
            )
        low, high = self.borders[:-1], self.borders[1:]
        start = torch.maximum(low, best.unsqueeze(-1))  # (B, K): where the bar begins to improve
        share = (high - start).clamp_min(0) / (high - low)
        gain = share * ((high + start) / 2 - best.unsqueeze(-1))
        return (logits.softmax(-1) @ gain.unsqueeze(-1)).squeeze(-1)

    def _middles(self) -> Tensor:
        return (self.borders[1:] + self.borders[:-1]) / 2

    def _check(self, logits: Tensor) -> None:
        if logits.shape[-1:] != (len(self.borders) - 1,):
            raise ValueError(f"logits must be (..., {len(self.borders) - 1}), got {tuple(logits.shape)}")
