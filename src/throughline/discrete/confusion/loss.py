"""Metrics of the soft confusion matrix as losses."""

import torch
from torch import Tensor, nn

from throughline.discrete.confusion.counts import check_options, soft_confusion
from throughline.discrete.confusion.metrics import (
    Metric,
    find_metric,
)

__all__ = ["MetricLoss", "metric_loss"]


def metric_loss(
    input: Tensor,
    target: Tensor,
    metric: Metric = "f1",
    *,
    amplification: float | None = 73.0,
    from_logits: bool = True,
    weight: Tensor | None = None,
    dim: int | tuple[int, ...] | None = None,
) -> Tensor:
    """1 minus a metric of the soft confusion matrix (eq. 5), in place of `binary_cross_entropy_with_logits`.

    The metric of a batch is no unbiased estimate of the metric of the whole set: let batches hold several positives.
    Samples learn only near the decision boundary (at \\|z\\| = 1 a gradient is down to 1e-7 of that at 0): start from
    small logits and take small steps. Time and memory are O(samples).

    Args:
        input, target, amplification, from_logits, weight, dim: as for `soft_confusion`. ``dim=0`` on ``(N, C)`` is the
            mean of C losses, one for each label.
        metric: "accuracy", "balanced_accuracy", "f0.5", "f1", "f2", "gmean", "jaccard", "mcc", "precision", "recall",
            "specificity", or a function of `Confusion` that returns a score to be maximised.

    Returns:
        Scalar: the mean over what ``dim`` leaves, computed in float32 at least, and in the dtype of ``input`` (under
        autocast it stays in float32).

    Raises:
        TypeError, ValueError: as `soft_confusion`, and an unknown name of a metric.

    >>> metric_loss(torch.tensor([9.0, 8.0, -9.0, 7.0]), torch.tensor([1, 0, 0, 1]))
    tensor(0.2000)
    """
    score = find_metric(metric)
    counts = soft_confusion(input, target, amplification=amplification, from_logits=from_logits, weight=weight, dim=dim)
    loss = (1 - score(counts)).mean()
    return loss if torch.is_autocast_enabled(loss.device.type) else loss.to(input.dtype)


class MetricLoss(nn.Module):
    """`metric_loss` as a module: ``forward(input, target, weight=None)`` gives a scalar.

    >>> loss = MetricLoss("f2")
    >>> z = torch.tensor([0.1, -0.2, 0.0], requires_grad=True)
    >>> loss(z, torch.tensor([1.0, 0.0, 0.0])).backward()
    >>> z.grad
    tensor([-1.6992,  0.0670,  0.6769])
    """

    def __init__(
        self,
        metric: Metric = "f1",
        *,
        amplification: float | None = 73.0,
        from_logits: bool = True,
        dim: int | tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        find_metric(metric)
        check_options(amplification)
        self.metric = metric
        self.amplification = amplification
        self.from_logits = from_logits
        self.dim = dim

    def forward(self, input: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        return metric_loss(
            input,
            target,
            self.metric,
            amplification=self.amplification,
            from_logits=self.from_logits,
            weight=weight,
            dim=self.dim,
        )

    def extra_repr(self) -> str:
        return f"{self.metric!r}, amplification={self.amplification}, from_logits={self.from_logits}, dim={self.dim}"
