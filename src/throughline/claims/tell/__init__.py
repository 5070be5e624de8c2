"""Clustering through a layer against k-means ("XAI Beyond Classification: Interpretable Neural Clustering", TELL, arXiv
1808.07292): scikit-learn's digits by default, the user's table or image folder, MNIST and CIFAR at paper scale.
"""

from throughline.claims.tell.claim import InterpretableClustering

__all__ = ["InterpretableClustering"]
