"""Losses on two views, by brute force."""

import math

import pytest
import torch
from torch.nn import functional as F

from throughline.claims.shared.contrastive import nt_xent


def test_nt_xent_is_the_formula() -> None:
    z, temperature = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0)).double(), 0.3
    views = [v for view in z for v in view]
    total = 0.0
    for i, anchor in enumerate(views):
        scores = [math.exp(F.cosine_similarity(anchor, other, dim=0) / temperature) for other in views]
        total -= math.log(scores[(i + 5) % 10] / (sum(scores) - scores[i]))
    assert nt_xent(z, temperature).item() == pytest.approx(total / 10)
