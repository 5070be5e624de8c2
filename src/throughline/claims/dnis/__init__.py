"""Searched against uniform embedding sizes ("Differentiable Neural Input Search for Recommender Systems", arXiv
2006.04466): ratings of MovieLens-100k by default, the user's table of ratings, MovieLens and Criteo at paper scale.
"""

from throughline.claims.dnis.claim import SearchedSizes

__all__ = ["SearchedSizes"]
