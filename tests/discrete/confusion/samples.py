"""What the tests of confusion matrices share: a few logits and labels, counts by definition and eq. 1 as printed."""

import numpy as np
import torch
from scipy.special import expit

from throughline.discrete.confusion import (
    Confusion,
)

Z = torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.2


Y = (torch.arange(40) % 4 == 0).double()


def hard(truth: list[int], called: list[int]) -> Confusion:
    """Counts by the definition, one sample at a time."""
    pairs = list(zip(truth, called, strict=True))
    counts = (pairs.count(pair) for pair in ((1, 1), (0, 1), (1, 0), (0, 0)))
    return Confusion(*(torch.tensor(float(count), dtype=torch.float64) for count in counts))


def eq_1(z: np.ndarray, steepness: float) -> np.ndarray:
    return 1 / (1 + np.exp(-steepness * (expit(z) - 0.5)))  # as printed in the paper
