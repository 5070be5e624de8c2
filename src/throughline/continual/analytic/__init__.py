"""Learning a stream of classes in closed form, without exemplars and without forgetting.

"G-ACIL: Analytic Learning for Exemplar-Free Generalized Class Incremental Learning" (arXiv 2403.15706): the head and
its random expansion, the head as a scikit-learn estimator, and the rival that the paper compares with.
"""

from throughline.continual.analytic.classifier import AnalyticClassifier
from throughline.continual.analytic.head import AnalyticHead, RandomExpansion
from throughline.continual.analytic.streaming_lda import StreamingLDA

__all__ = ["AnalyticClassifier", "AnalyticHead", "RandomExpansion", "StreamingLDA"]
