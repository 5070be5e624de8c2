"""Metrics of the confusion matrix as losses: F-beta, balanced accuracy, G-mean, Jaccard, MCC, or one of your own.

"AnyLoss: Transforming Classification Metrics into Loss Functions" (arXiv 2405.14745): every prediction is pushed to an
almost-label, the almost-labels are summed to a soft confusion matrix, and the loss is 1 minus any metric of it.
"""

from throughline.discrete.confusion.classifier import MetricClassifier
from throughline.discrete.confusion.counts import Confusion, soft_confusion
from throughline.discrete.confusion.loss import MetricLoss, metric_loss
from throughline.discrete.confusion.metrics import (
    Metric,
    accuracy,
    balanced_accuracy,
    fbeta,
    gmean,
    jaccard,
    mcc,
    precision,
    recall,
    specificity,
)

__all__ = [
    "Confusion",
    "Metric",
    "MetricClassifier",
    "MetricLoss",
    "accuracy",
    "balanced_accuracy",
    "fbeta",
    "gmean",
    "jaccard",
    "mcc",
    "metric_loss",
    "precision",
    "recall",
    "soft_confusion",
    "specificity",
]
