"""Pointer networks against sequence-to-sequence models ("Pointer Networks", arXiv 1506.03134): hulls, tours and
triangulations drawn as in the paper, or the user's own points.
"""

from throughline.claims.pointer_net.claim import Pointing

__all__ = ["Pointing"]
