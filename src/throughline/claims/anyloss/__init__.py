"""Training on a metric against training on cross-entropy ("AnyLoss: Transforming Classification Metrics into Loss
Functions", arXiv 2405.14745): a linear model on ten UCI sets and the paper's generator by default, the user's own
table, and 27 imbalanced sets, an MLP and a ResNet at paper scale.
"""

from throughline.claims.anyloss.claim import MetricAsLoss

__all__ = ["MetricAsLoss"]
