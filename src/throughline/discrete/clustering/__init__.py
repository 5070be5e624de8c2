"""k-means as a neural layer, and as a clusterer that shapes the representation in front of it.

"XAI Beyond Classification: Interpretable Neural Clustering" (TELL, arXiv 1808.07292): the layer for training loops of
your own, and the scikit-learn estimator.
"""

from throughline.discrete.clustering.kmeans_layer import KMeansLayer
from throughline.discrete.clustering.tell import TELL

__all__ = ["TELL", "KMeansLayer"]
