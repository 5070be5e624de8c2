"""What a denoiser's prior is worth ("What's in a Prior? Learned Proximal Networks for Inverse Problems", arXiv
2310.14344): the paper's Laplace samples by default, the user's samples or images, MNIST and CelebA at paper scale.
"""

from throughline.claims.lpn.claim import LearnsTheLogPrior

__all__ = ["LearnsTheLogPrior"]
