"""Self-tuning networks against random search ("Self-Tuning Networks: Bilevel Optimization of Hyperparameters using
Structured Best-Response Functions", arXiv 1903.03088): MNIST by default, the user's table or image folder, CIFAR-10 and
the Penn Treebank at paper scale.
"""

from throughline.claims.stn.claim import TunesWhileTraining

__all__ = ["TunesWhileTraining"]
