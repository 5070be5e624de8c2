"""A key-value bottleneck against a linear probe and an MLP on a stream of classes ("Discrete Key-Value Bottleneck",
arXiv 2207.11240): MNIST behind an Omniglot encoder by default, the user's table or image folder, CIFAR-10 at paper
scale.
"""

from throughline.claims.dkvb.claim import StreamWithoutForgetting

__all__ = ["StreamWithoutForgetting"]
