"""The learners of the G-ACIL claim, and the stream as they and the pictures see it."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from throughline.claims.g_acil.config import Config
from throughline.continual.analytic import AnalyticHead, RandomExpansion, StreamingLDA
from throughline.core.ridge import ridge

__all__ = ["batches", "histogram", "learner_of", "weight_error"]

BINS = 80  # of the stream's picture


def learner_of(
    arm: str, config: Config, width: int, draw: torch.Generator
) -> tuple[AnalyticHead | StreamingLDA, Callable[[Tensor], Tensor]]:
    """The learner of an arm, and what happens to features before it; G-ACIL's expansion is part of its head."""
    expansion = RandomExpansion(width, config.expansion, generator=draw, dtype=torch.float64, device=config.device)
    if arm == "slda":
        return StreamingLDA(width, shrinkage=config.shrinkage, device=config.device), lambda x: x
    if arm == "slda_expanded":
        lda = StreamingLDA(config.expansion, shrinkage=config.shrinkage_expanded, device=config.device)
        return lda, lambda x: expansion(x.double())
    head = AnalyticHead(width, expansion=expansion, penalty=config.penalty, form=config.form, device=config.device)
    return head, lambda x: x


def batches(n: int, size: int, stops: set[int]) -> Iterator[tuple[int, int]]:
    """Start and end of batches of at most ``size`` that end at every stop."""
    ends = [0, *sorted(stops | {n})]
    for left, right in pairwise(ends):
        starts = range(left, right, size)
        yield from ((start, min(start + size, right)) for start in starts)


def weight_error(head: AnalyticHead, x: Tensor, y: Tensor, penalty: float) -> float:
    """Relative distance of the streamed weights from those of ridge regression on all samples so far."""
    targets = (y[:, None] == head.classes).double()
    joint = ridge(head.expansion(x.double()), targets, penalty=penalty)
    return float((head.weight - joint).norm() / joint.norm())


def histogram(labels: Tensor) -> np.ndarray:
    """Samples by class and stretch of the stream: (C, BINS)."""
    classes, column = np.unique(labels.numpy(), return_inverse=True)
    moment = np.arange(len(column)) * BINS // len(column)
    return np.bincount(column * BINS + moment, minlength=len(classes) * BINS).reshape(len(classes), BINS)
