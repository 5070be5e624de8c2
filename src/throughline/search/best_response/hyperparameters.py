"""Hyperparameters with a Gaussian around them: unconstrained values that gradients move, and what they stand for.

"Self-Tuning Networks: Bilevel Optimization of Hyperparameters using Structured Best-Response Functions"
(arXiv 1903.03088).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.core.checks import check_floating

__all__ = ["Hyperparameter", "HyperparameterSpace"]

FAR = -15.0  # below it log softplus(s) is s to seven digits


@dataclass(frozen=True)
class Hyperparameter:
    """One hyperparameter to tune: its range, where it starts, and how widely it is perturbed.

    Args:
        name: by which losses, augmentations and dropout layers know it.
        initial: inside the open interval (low, high); of a discrete one, an integer of low, …, high.
        low, high: the range, each finite or infinite.
        discrete: takes the integers low, …, high. The loss sees the integer, the network the continuous value.
        shared: cannot differ within a batch: one draw serves all its samples.
        scale: σ at the start, the standard deviation of the perturbation of the unconstrained value.

    Raises:
        ValueError: ``low`` is not below ``high``, or another field is out of range.

    >>> Hyperparameter("dropout", 0.05, low=0.0, high=0.9).high
    0.9
    """

    name: str
    initial: float
    low: float = -math.inf
    high: float = math.inf
    discrete: bool = False
    shared: bool = False
    scale: float = 0.5

    def __post_init__(self) -> None:
        low, high = self.low, self.high
        if not low < high:
            raise ValueError(f"low must be below high, got {low} and {high} for {self.name!r}")
        if self.discrete and not (float(low).is_integer() and float(high).is_integer()):
            raise ValueError(f"low and high must be integers when discrete, got {low} and {high} for {self.name!r}")
        if self.discrete and not (low <= self.initial <= high and float(self.initial).is_integer()):
            raise ValueError(f"initial must be an integer in [{low}, {high}], got {self.initial} for {self.name!r}")
        if not self.discrete and not low < self.initial < high:
            raise ValueError(f"initial must be inside ({low}, {high}), got {self.initial} for {self.name!r}")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale must be positive and finite, got {self.scale} for {self.name!r}")

    def _unconstrained(self) -> float:
        """λ at which the hyperparameter has its initial value: the inverse of `_constrained`."""
        low, high, value = self.low, self.high, self.initial
        if self.discrete:
            high, value = high + 1, value + 0.5  # the middle of the cell, where no rounding can miss it
        if math.isfinite(low) and math.isfinite(high):
            return math.log(value - low) - math.log(high - value)
        if math.isfinite(low):
            return _softplus_inverse(value - low)
        return _softplus_inverse(high - value) if math.isfinite(high) else value

    def _constrained(self, value: Tensor) -> Tensor:
        """r(λ) of the unconstrained ``value``, elementwise."""
        low, high = self.low, self.high
        if self.discrete:
            return (low + (high + 1 - low) * value.sigmoid()).floor().clamp_max(high)
        if math.isfinite(low) and math.isfinite(high):
            return low + (high - low) * value.sigmoid()
        if math.isfinite(low):
            return low + F.softplus(value)
        return high - F.softplus(value) if math.isfinite(high) else value


class HyperparameterSpace(nn.Module):
    """Several hyperparameters at once: λ and σ of a Gaussian over unconstrained values, both learnable.

    A network in which ŵ(λ) is a best response is trained at λ + σ ε, so that it learns how to change with λ; σ is
    learned too, and the entropy of the Gaussian keeps it from collapsing (section 3.3).

    Args:
        hyperparameters: at least one, with names of their own.

    Attributes:
        location: λ, ``(n,)``, unconstrained.
        raw_scale: s, ``(n,)``, with σ = softplus(s).

    Raises:
        ValueError: no hyperparameters, or two of one name.

    >>> rate = Hyperparameter("rate", 0.25, low=0.0, high=0.5)
    >>> space = HyperparameterSpace([rate, Hyperparameter("log decay", -3.0)])
    >>> space.values()
    {'rate': 0.25, 'log decay': -3.0}
    >>> space.sample(4).shape
    torch.Size([4, 2])
    """

    _shared: Tensor

    def __init__(self, hyperparameters: Sequence[Hyperparameter]) -> None:
        super().__init__()
        self.hyperparameters = tuple(hyperparameters)
        names = self.names
        if not names:
            raise ValueError("hyperparameters must be at least one, got none")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"hyperparameters must have names of their own, got {twice!r} twice")
        self.location = nn.Parameter(torch.tensor([h._unconstrained() for h in self.hyperparameters]))
        self.raw_scale = nn.Parameter(torch.tensor([_softplus_inverse(h.scale) for h in self.hyperparameters]))
        shared = torch.tensor([h.shared for h in self.hyperparameters])
        self.register_buffer("_shared", shared, persistent=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the order of λ."""
        return tuple(h.name for h in self.hyperparameters)

    @property
    def scale(self) -> Tensor:
        """σ = softplus(s), ``(n,)``."""
        return F.softplus(self.raw_scale)

    def sample(self, batch_size: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw λ + σ ε with an ε for each sample: ``(batch_size, n)``, differentiable in λ and s.

        A hyperparameter that is ``shared`` takes the ε of the first sample in all of them.

        Raises:
            ValueError: ``batch_size`` is below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        location = self.location
        source = location.device if generator is None else generator.device
        shape = (batch_size, len(location))
        noise = torch.randn(shape, generator=generator, dtype=location.dtype, device=source).to(location.device)
        noise = torch.where(self._shared, noise[:1], noise)
        return location + self.scale * noise

    def constrain(self, value: Tensor) -> dict[str, Tensor]:
        """r(λ) by name: unconstrained ``(..., n)`` to ``(...)`` each. Integers of discrete ones have no gradient.

        Raises:
            TypeError: ``value`` is not floating point.
            ValueError: its last dimension is not n.
        """
        check_floating("value", value)
        if value.ndim < 1 or value.shape[-1] != len(self.hyperparameters):
            raise ValueError(f"value must be (..., {len(self.hyperparameters)}), got shape {tuple(value.shape)}")
        columns = zip(self.hyperparameters, value.unbind(-1), strict=True)
        return {h.name: h._constrained(column) for h, column in columns}

    def entropy(self) -> Tensor:
        """H(σ) = Σᵢ log(σᵢ √(2πe)), a scalar; finite however small σ is."""
        s = self.raw_scale
        log_scale = torch.where(s < FAR, s, F.softplus(s.clamp_min(FAR)).log())
        return (log_scale + 0.5 * math.log(2 * math.pi * math.e)).sum()

    @torch.no_grad()
    def values(self) -> dict[str, float]:
        """The constrained values at λ, as plain numbers."""
        return dict(zip(self.names, self._values().tolist(), strict=True))

    @torch.no_grad()
    def _values(self) -> Tensor:
        return torch.stack(list(self.constrain(self.location).values()))

    def extra_repr(self) -> str:
        return ", ".join(self.names)


def _softplus_inverse(value: float) -> float:
    return value + math.log(-math.expm1(-value))
