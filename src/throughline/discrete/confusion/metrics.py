"""Metrics of a binary confusion matrix, hard or soft, with gradients where the counts have any ("AnyLoss: Transforming
Classification Metrics into Loss Functions", arXiv 2405.14745, section 3).

On hard counts each equals its scikit-learn namesake. 0/0 is 0 with zero gradient, as is a square root at 0.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from throughline.core.checks import check_tensor
from throughline.discrete.confusion.counts import Confusion

__all__ = [
    "accuracy",
    "balanced_accuracy",
    "fbeta",
    "gmean",
    "jaccard",
    "mcc",
    "precision",
    "recall",
    "specificity",
]

Metric = str | Callable[[Confusion], Tensor]  # a callable returns a score to be maximised


def accuracy(c: Confusion) -> Tensor:
    """(TP + TN) / n, elementwise over the counts of ``c``.

    >>> accuracy(Confusion(*torch.tensor([3.0, 1.0, 2.0, 4.0])))
    tensor(0.7000)
    """
    tp, fp, fn, tn = _floating(c)
    return _ratio(tp + tn, tp + fp + fn + tn)


def precision(c: Confusion) -> Tensor:
    """TP / (TP + FP), elementwise; 0 without predicted positives.

    >>> precision(Confusion(*torch.tensor([3.0, 1.0, 2.0, 4.0])))
    tensor(0.7500)
    """
    tp, fp, _, _ = _floating(c)
    return _ratio(tp, tp + fp)


def recall(c: Confusion) -> Tensor:
    """TP / (TP + FN), elementwise; 0 without positives.

    >>> recall(Confusion(*torch.tensor([3.0, 1.0, 2.0, 4.0])))
    tensor(0.6000)
    """
    tp, _, fn, _ = _floating(c)
    return _ratio(tp, tp + fn)


def specificity(c: Confusion) -> Tensor:
    """TN / (TN + FP), elementwise; 0 without negatives.

    >>> specificity(Confusion(*torch.tensor([3.0, 1.0, 2.0, 4.0])))
    tensor(0.8000)
    """
    _, fp, _, tn = _floating(c)
    return _ratio(tn, tn + fp)


def fbeta(c: Confusion, beta: float = 1.0) -> Tensor:
    """(1 + β²) TP / ((1 + β²) TP + β² FN + FP), elementwise; β > 1 weighs recall more than precision.

    Raises:
        ValueError: ``beta`` is not positive and finite.

    >>> fbeta(Confusion(*torch.tensor([3.0, 1.0, 2.0, 4.0])), beta=2.0)
    tensor(0.6250)
    """
    if not 0 < beta < math.inf:
        raise ValueError(f"beta must be positive and finite, got {beta}")
    tp, fp, fn, _ = _floating(c)
    hits = (1 + beta**2) * tp
    return _ratio(hits, hits + beta**2 * fn + fp)


def balanced_accuracy(c: Confusion) -> Tensor:
    """Mean of recall and specificity, elementwise; where a class is absent, the rate of the other one.

    >>> balanced_accuracy(Confusion(*torch.tensor([3.0, 1.0, 2.0, 4.0])))
    tensor(0.7000)
    """
    rates = recall(c) + specificity(c)
    positives, negatives = (~_nothing(size) for size in _class_sizes(c))
    return _ratio(rates, positives.to(rates.dtype) + negatives.to(rates.dtype))


def gmean(c: Confusion) -> Tensor:
    """Geometric mean of recall and specificity, elementwise; where a class is absent, the rate of the other one.

    >>> gmean(Confusion(*torch.tensor([3.0, 1.0, 2.0, 4.0])))
    tensor(0.6928)
    """
    positives, negatives = _class_sizes(c)
    first, second = recall(c), specificity(c)
    both = _root(first) * _root(second)  # not the root of the product, which underflows earlier
    return torch.where(_nothing(positives), second, torch.where(_nothing(negatives), first, both))


def jaccard(c: Confusion) -> Tensor:
    """TP / (TP + FP + FN), elementwise: intersection over union of the positives.

    >>> jaccard(Confusion(*torch.tensor([3.0, 1.0, 2.0, 4.0])))
    tensor(0.5000)
    """
    tp, fp, fn, _ = _floating(c)
    return _ratio(tp, tp + fp + fn)


def mcc(c: Confusion) -> Tensor:
    """Matthews correlation (TP TN - FP FN) / √((TP + FP)(TP + FN)(TN + FP)(TN + FN)), elementwise, in [-1, 1].

    >>> mcc(Confusion(*torch.tensor([3.0, 1.0, 2.0, 4.0])))
    tensor(0.4082)
    """
    counts = _floating(c)
    n = counts.tp + counts.fp + counts.fn + counts.tn
    tp, fp, fn, tn = (_ratio(one, n) for one in counts)  # shares: products of four counts would overflow
    predicted, actual = _root((tp + fp) * (tn + fn)), _root((tp + fn) * (tn + fp))
    return _ratio(_ratio(tp * tn - fp * fn, predicted), actual)


METRICS: dict[str, Callable[[Confusion], Tensor]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "f0.5": partial(fbeta, beta=0.5),
    "f1": fbeta,
    "f2": partial(fbeta, beta=2.0),
    "fbeta": fbeta,
    "gmean": gmean,
    "jaccard": jaccard,
    "mcc": mcc,
    "precision": precision,
    "recall": recall,
    "specificity": specificity,
}


def find_metric(metric: Metric) -> Callable[[Confusion], Tensor]:
    """The function that a name stands for; a callable is its own."""
    if callable(metric):
        return metric
    if metric not in METRICS:
        raise ValueError(f"metric must be a callable or one of {', '.join(METRICS)}, got {metric!r}")
    return METRICS[metric]


def _floating(c: Confusion) -> Confusion:
    for name, one in zip(Confusion._fields, c, strict=True):
        check_tensor(name, one)
    if c.tp.is_floating_point():
        return c
    return Confusion(*(one.to(torch.get_default_dtype()) for one in c))


def _class_sizes(c: Confusion) -> tuple[Tensor, Tensor]:
    tp, fp, fn, tn = _floating(c)
    return tp + fn, tn + fp


def _nothing(x: Tensor) -> Tensor:
    return x.detach() < torch.finfo(x.dtype).tiny  # the reciprocal of what lies between that and 0 overflows


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return numerator / denominator.masked_fill(_nothing(denominator), math.inf)  # 0 with zero gradient, both ways


def _root(x: Tensor) -> Tensor:
    nothing = _nothing(x)
    return x.masked_fill(nothing, 1.0).sqrt().masked_fill(nothing, 0.0)
