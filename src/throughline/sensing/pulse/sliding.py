"""Sums over all windows of a signal in O(T log L), by joining windows of half the length.

Every value is a sum of differences within one window: exactly zero where nothing changes, without the digits that a
running sum over the whole signal cancels, and NaN only in windows that hold one.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["FIRST", "SECOND", "covariances", "overlapped"]

FIRST, SECOND = [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]  # the pairs of three channels
Pair = tuple[Tensor, Tensor]


def covariances(x: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Of every window of ``x (n, 3, T)``: means less the first values ``(n, 3, windows)`` and, of the pairs of channels
    (0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2), sums of products of deviations from the means ``(n, 6, windows)``.
    """

    def join(one: Pair, k: int, other: Pair, m: int) -> Pair:
        count = x.shape[-1] - k - m + 1
        step = x[..., k : k + count] - x[..., :count]
        total, products = (s[..., k : k + count] for s in other)
        half = total + (m / 2) * step
        crossed = half[:, FIRST] * step[:, SECOND] + half[:, SECOND] * step[:, FIRST]
        return one[0][..., :count] + total + m * step, one[1][..., :count] + products + crossed

    total, products = _joined((torch.zeros_like(x), torch.zeros_like(x[:, FIRST])), length, join)
    mean = total / length
    return mean, products - total[:, FIRST] * mean[:, SECOND]


def overlapped(weight: Tensor, x: Tensor, offset: Tensor, length: int) -> Tensor:
    """Σ over the windows around every frame t of weight·(x(t) - x(start)) - offset, ``(n, c, T)``.

    ``weight`` and ``offset`` are those of the windows, ``(n, c, windows)``, and ``x`` is ``(n, c, T)``.
    """
    frames = x.shape[-1]

    def join(one: Pair, k: int, other: Pair, m: int) -> Pair:
        weights, added = one[0].clone(), one[1].clone()
        earlier = other[0][..., : frames - k]
        weights[..., k:] += earlier
        added[..., k:] += other[1][..., : frames - k] + earlier * (x[..., k:] - x[..., : frames - k])
        return weights, added

    start = F.pad(weight, (0, length - 1)), F.pad(-offset, (0, length - 1))
    return _joined(start, length, join)[1]


def _joined(single: Pair, length: int, join: Callable[[Pair, int, Pair, int], Pair]) -> Pair:
    """Sums of windows of ``length`` from those of one frame: ``join(one, k, other, m)`` is of k frames and then m."""
    if length == 1:
        return single
    half = _joined(single, length // 2, join)
    found = join(half, length // 2, half, length // 2)
    return join(single, 1, found, length - 1) if length % 2 else found
