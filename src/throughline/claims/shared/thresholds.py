"""Decisions by a threshold on logits: how they turn out, and which threshold is best for a score."""

from collections.abc import Callable

import torch
from torch import Tensor

from throughline.discrete.confusion import Confusion

__all__ = ["best_threshold", "hard_counts"]


def hard_counts(z: Tensor, y: Tensor, threshold: float = 0.0) -> Confusion:
    """The confusion matrix of the decisions z > threshold."""
    called, y = (z > threshold).double(), y.double()
    return Confusion(
        (called * y).sum(), (called * (1 - y)).sum(), ((1 - called) * y).sum(), ((1 - called) * (1 - y)).sum()
    )


def best_threshold(z: Tensor, y: Tensor, score: Callable[[Confusion], Tensor]) -> float:
    """The threshold with the best score: of all that lie half way between two logits, the first."""
    order = z.double().sort(descending=True)
    hits = torch.cat([torch.zeros(1), y.double().cpu()[order.indices.cpu()].cumsum(0)]).double()
    values = order.values.cpu()
    called = torch.arange(len(values) + 1).double()
    scores = score(Confusion(hits, called - hits, hits[-1] - hits, len(values) - hits[-1] - called + hits))
    edges = torch.cat([values[:1] + 1, (values[:-1] + values[1:]) / 2, values[-1:] - 1])
    whole = torch.cat([torch.ones(1), values[:-1] > values[1:], torch.ones(1)]).bool()  # equal logits go together
    return float(edges[torch.where(whole, scores, -torch.inf).argmax()])
