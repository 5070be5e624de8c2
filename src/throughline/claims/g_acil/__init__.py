"""G-ACIL against streaming LDA on a Si-Blurry stream ("G-ACIL: Analytic Learning for Exemplar-Free Generalized Class
Incremental Learning", arXiv 2403.15706): MNIST by default, the user's table or image folder, CIFAR-100 at paper scale.
"""

from throughline.claims.g_acil.claim import AnalyticStream

__all__ = ["AnalyticStream"]
