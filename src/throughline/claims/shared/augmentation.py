"""What training on small pictures always does to them."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["shifted_and_mirrored"]


def shifted_and_mirrored(x: Tensor, draw: torch.Generator) -> Tensor:
    """Images ``(n, c, h, w)`` shifted by up to four pixels, half of them mirrored."""
    n, _, height, width = x.shape
    top, left = torch.randint(9, (2, n), generator=draw).to(x.device)
    mirrored = (torch.rand(n, generator=draw) < 0.5).to(x.device)
    rows = top[:, None] + torch.arange(height, device=x.device)
    columns = torch.arange(width, device=x.device)
    columns = left[:, None] + torch.where(mirrored[:, None], columns.flip(0), columns)
    each = torch.arange(n, device=x.device)[:, None, None]
    return F.pad(x, (4, 4, 4, 4)).movedim(1, -1)[each, rows[:, :, None], columns[:, None]].movedim(-1, 1)
