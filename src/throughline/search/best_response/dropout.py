"""Dropout with a rate for each sample ("Self-Tuning Networks: Bilevel Optimization of Hyperparameters using Structured
Best-Response Functions", arXiv 1903.03088).
"""

from numbers import Real

import torch
from torch import Tensor, nn

from throughline.core.checks import check_floating

__all__ = ["TunableDropout"]


class TunableDropout(nn.Module):
    """Dropout with a rate for each sample: entries, or whole channels, survive with probability 1 − p_b and are divided
    by it. The identity in evaluation mode, and without gradient by the rate.

    Args:
        channels: drop whole channels of ``(B, C, ...)``.

    Raises:
        TypeError: in `forward`, an input that is not floating point, or a rate that is neither number nor tensor.
        ValueError: in `forward`, a rate outside [0, 1) or of another batch.

    >>> TunableDropout()(torch.ones(2, 4), torch.tensor([0.0, 0.5])).shape
    torch.Size([2, 4])
    """

    def __init__(self, *, channels: bool = False) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor, rate: float | Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Drop from ``x`` ``(B, ...)``.

        Args:
            x: floating point; ``(B, C, ...)`` where channels are dropped.
            rate: a number in [0, 1) or a tensor of them, ``(B,)`` or without dimensions (not read, hence not checked).
            generator: of the draw; torch's global one by default.
        """
        check_floating("x", x)
        if self.channels and x.ndim < 2:
            raise ValueError(f"x must be (B, C, ...) to drop channels, got shape {tuple(x.shape)}")
        if not isinstance(rate, Tensor):
            _check_rate(rate)
            rate = torch.tensor(rate, dtype=torch.float32, device=x.device)
        elif rate.ndim and (x.ndim == 0 or rate.shape != x.shape[:1]):
            raise ValueError(f"rate must be a number or {tuple(x.shape[:1])}, got shape {tuple(rate.shape)}")
        if not self.training:
            return x
        keep = (1 - rate.detach().float()).view(-1, *(1,) * (x.ndim - 1)) if rate.ndim else 1 - rate.detach().float()
        shape = (*x.shape[:2], *(1,) * (x.ndim - 2)) if self.channels else x.shape
        source = x.device if generator is None else generator.device
        drawn = torch.rand(shape, generator=generator, dtype=torch.float32, device=source).to(x.device)
        return x * ((drawn < keep) / keep).to(x.dtype)

    def extra_repr(self) -> str:
        return "channels=True" if self.channels else ""


def _check_rate(rate: object) -> None:
    if not isinstance(rate, Real):
        raise TypeError(f"rate must be a number or a tensor, got {type(rate).__name__}")
    if not 0 <= float(rate) < 1:
        raise ValueError(f"rate must be in [0, 1), got {rate}")
