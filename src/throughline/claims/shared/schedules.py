"""Learning rates along a training run."""

import torch
from torch.optim import lr_scheduler

__all__ = ["warm_cosine"]


def warm_cosine(optimizer: torch.optim.Optimizer, steps: int, rise: int) -> lr_scheduler.SequentialLR:
    """A linear rise over the first ``rise`` steps, or half of all if that is less, and a cosine down to zero behind."""
    rise = max(1, min(rise, steps // 2))
    return lr_scheduler.SequentialLR(
        optimizer,
        [
            lr_scheduler.LinearLR(optimizer, 1 / rise, total_iters=rise),
            lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - rise)),
        ],
        milestones=[rise],
    )
