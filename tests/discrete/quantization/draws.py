"""Random numbers of the tests of quantisation."""

import torch
from torch import Tensor


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=seeded(seed), dtype=torch.float64)
