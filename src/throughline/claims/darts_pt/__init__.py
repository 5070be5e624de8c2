"""Options chosen by their removal against options chosen by their weight ("Rethinking Architecture Selection in
Differentiable NAS", arXiv 2108.04392): MNIST-1D by default, the user's signals or images, CIFAR-10 at paper scale.
"""

from throughline.claims.darts_pt.claim import ChoosesByRemoval

__all__ = ["ChoosesByRemoval"]
