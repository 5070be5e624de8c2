"""Relaxed architecture search against DARTS of first and second order ("RARTS: An Efficient First-Order Relaxed
Architecture Search Method", arXiv 2008.03901): MNIST-1D by default, the user's signals or images, CIFAR-10 at paper
scale.
"""

from throughline.claims.rarts.claim import RelaxesTheSearch

__all__ = ["RelaxesTheSearch"]
