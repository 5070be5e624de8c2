"""Losses on two views of each image."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["nt_xent"]


def nt_xent(z: Tensor, temperature: float) -> Tensor:
    """NT-Xent of two views ``(2, B, D)``: each of the 2B finds its partner among the other 2B - 1."""
    views = F.normalize(z.flatten(0, 1), dim=-1)
    logits = (views @ views.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(views), device=z.device).roll(z.shape[1])
    return F.cross_entropy(logits, partner)
