"""GroCo against NT-Xent ("Learning by Sorting: Self-supervised Learning with Group Ordering Constraints", arXiv
2301.02009): Omniglot drawings by default, the user's image folder, ImageNet at paper scale.
"""

from throughline.claims.groco.claim import GroupOrdering

__all__ = ["GroupOrdering"]
