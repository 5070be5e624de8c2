"""Supernets taught by their own past ("Improving Differentiable Architecture Search via Self-Distillation",
arXiv 2302.05629): MNIST-1D by default, the user's signals or images, CIFAR-10 at paper scale.
"""

from throughline.claims.sd_darts.claim import FlattensTheSupernet

__all__ = ["FlattensTheSupernet"]
