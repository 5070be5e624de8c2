"""The Euclidean distance transform, exact and separable."""

import torch
from torch import Tensor

from throughline.core.checks import check_tensor

__all__ = ["distance_transform"]

ENTRIES = 2**18  # of the sums that are in memory at a time on a CPU; a GPU takes 64 times as many


def distance_transform(mask: Tensor) -> Tensor:
    """How far every pixel is from the nearest one of a mask, in pixels: 0 on the mask, exact to rounding.

    First along one side, then d² = min_j (i - j)² + g_j² along the other: O(H W min(H, W)) time, blocks of rows bound
    the memory. Without gradient. (SciPy's ``distance_transform_edt`` gives the same for ``~mask``.)

    Args:
        mask: boolean, ``(..., H, W)``.

    Returns:
        ``(..., H, W)`` in float32; max(H, W) all over where a mask is empty.

    Raises:
        TypeError: ``mask`` is not boolean.
        ValueError: ``mask`` has less than two dimensions.

    >>> distance_transform(torch.tensor([[False, False, True, False], [False, False, False, False]]))
    tensor([[2.0000, 1.0000, 0.0000, 1.0000],
            [2.2361, 1.4142, 1.0000, 1.4142]])
    """
    check_tensor("mask", mask)
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be boolean, got {mask.dtype}: mask != 0 makes it so")
    if mask.ndim < 2:
        raise ValueError(f"mask must be (..., H, W), got shape {tuple(mask.shape)}")
    if not mask.numel():
        return torch.zeros(mask.shape, device=mask.device)
    turned = mask.mT if mask.shape[-1] > mask.shape[-2] else mask  # the minimum runs along the shorter side
    long, short = turned.shape[-2:]
    far = 2.0 * (long + short)
    place = torch.arange(long, dtype=torch.float32, device=mask.device).unsqueeze(1)
    before = torch.where(turned, place, -far).cummax(-2).values
    after = torch.where(turned, place, far).flip(-2).cummin(-2).values.flip(-2)
    square = torch.minimum(place - before, after - place).square()
    steps = torch.arange(short, dtype=torch.float32, device=mask.device)
    apart = (steps.unsqueeze(1) - steps).square()
    lines = square.flatten(0, -2)
    size = max(1, (ENTRIES if mask.is_cpu else 64 * ENTRIES) // short**2)
    least = torch.cat([(part.unsqueeze(-2) + apart).amin(-1) for part in torch.split(lines, size)])
    distance = least.sqrt().view(turned.shape)
    distance = torch.where(turned.any(-1).any(-1)[..., None, None], distance, float(long))
    return distance.mT.contiguous() if turned is not mask else distance
