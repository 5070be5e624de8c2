"""Distilled students of few bits against quantising afterwards ("Model compression via distillation and quantization",
arXiv 1802.05668): MNIST by default, the user's table or image folder, CIFAR-10 and CIFAR-100 at paper scale.
"""

from throughline.claims.distill_quant.claim import LowBitStudent

__all__ = ["LowBitStudent"]
