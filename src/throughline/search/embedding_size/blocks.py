"""Blocks of equally frequent features, and the sizes that popularity alone would give them ("Differentiable Neural
Input Search for Recommender Systems", arXiv 2006.04466).
"""

import math

import torch
from torch import Tensor

from throughline.core.checks import check_tensor, integer, readable

__all__ = ["check_counts", "frequency_blocks", "mixed_dimensions"]

ROUNDING = 1e-12  # so that a quotient just below a whole number, by rounding alone, is that number


def frequency_blocks(counts: Tensor, num_blocks: int = 10) -> Tensor:
    """The block of each feature when features are sorted by how often they occur and cut into equal blocks.

    Rank r of N goes to block min(⌊r / ⌊N/L⌋⌋, L − 1): the remainder is in the last block, the rarest ("Differentiable
    Neural Input Search for Recommender Systems", arXiv 2006.04466). Among equal counts the lower id comes first.

    Args:
        counts: occurrences in the training data, ``(N,)``, not negative.
        num_blocks: L, from 1 to N; N gives each feature a block of its own.

    Returns:
        ``(N,)`` int64 from 0, the most frequent, to L − 1, on the device of ``counts``.

    Raises:
        TypeError: ``counts`` is no tensor, or ``num_blocks`` no integer.
        ValueError: ``counts`` is not 1-d, negative or not finite, or ``num_blocks`` is out of range.

    >>> frequency_blocks(torch.tensor([5, 90, 5, 0, 40]), 2)
    tensor([1, 0, 1, 1, 0])
    """
    check_counts("counts", counts)
    num_blocks = integer("num_blocks", num_blocks)
    if not 1 <= num_blocks <= len(counts):
        raise ValueError(f"num_blocks must be from 1 to the {len(counts)} entries of counts, got {num_blocks}")
    order = counts.argsort(descending=True, stable=True)
    ranks = torch.empty_like(order).scatter_(0, order, torch.arange(len(counts), device=counts.device))
    return (ranks // (len(counts) // num_blocks)).clamp_max(num_blocks - 1)


def mixed_dimensions(counts: Tensor, num_blocks: int = 10, *, base_dim: int, temperature: float = 0.3) -> Tensor:
    """The size that popularity gives each block within a budget, without a search: mixed dimensions (MDE).

    Block l of n_l features, with the share p_l of all occurrences, gets max(1, ⌊d̄N · p_l^θ / (Σ_m p_m^θ · n_l)⌋)
    dimensions; the baseline of "Differentiable Neural Input Search for Recommender Systems" (arXiv 2006.04466).

    Args:
        counts: occurrences in the training data, ``(N,)``, not negative and not all 0.
        num_blocks: L, of `frequency_blocks`.
        base_dim: d̄, at least 1: the mean size that the budget d̄N pays for.
        temperature: θ in [0, 1); 0 gives equal blocks the same size, more gives frequent ones more.

    Returns:
        ``(L,)`` int64, on the device of ``counts``.

    Raises:
        TypeError, ValueError: as `frequency_blocks`, and for ``base_dim`` and ``temperature`` out of range.

    >>> mixed_dimensions(torch.tensor([81, 9, 9, 1]), 2, base_dim=8, temperature=0.5)
    tensor([12,  4])
    """
    blocks = frequency_blocks(counts, num_blocks)
    base_dim = integer("base_dim", base_dim)
    if base_dim < 1:
        raise ValueError(f"base_dim must be at least 1, got {base_dim}")
    if not 0 <= temperature < 1:
        raise ValueError(f"temperature must be in [0, 1), got {temperature}")
    occurrences = counts.new_zeros(num_blocks, dtype=torch.float64).index_add(0, blocks, counts.double())
    total = occurrences.sum()
    if readable(counts) and not total > 0:
        raise ValueError("counts must not all be 0")
    weights = (occurrences / total) ** temperature
    features = torch.zeros_like(weights).index_add(0, blocks, torch.ones_like(counts, dtype=torch.float64))
    sizes = base_dim * len(counts) * weights / (weights.sum() * features)
    return (sizes * (1 + ROUNDING)).floor().clamp_min(1).long()


def check_counts(name: str, counts: Tensor) -> None:
    """Raise unless ``counts`` is a 1-d tensor of numbers that are finite and not negative."""
    check_tensor(name, counts)
    if counts.ndim != 1:
        raise ValueError(f"{name} must be 1-d, a number for each feature, got shape {tuple(counts.shape)}")
    if readable(counts) and counts.numel() and not ((counts >= 0) & (counts < math.inf)).all():
        wrong = counts[~((counts >= 0) & (counts < math.inf))][0]
        raise ValueError(f"{name} must be finite and not negative, got {wrong.item()}")
