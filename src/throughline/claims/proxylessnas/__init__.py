"""Search along single paths and for low latency, against the mixture of all candidates ("ProxylessNAS: Direct Neural
Architecture Search on Target Task and Hardware", arXiv 1812.00332): MNIST-1D by default, the user's signals or images,
ImageNet at paper scale.
"""

from throughline.claims.proxylessnas.claim import SearchesInOnePath

__all__ = ["SearchesInOnePath"]
