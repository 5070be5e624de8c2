"""Shapes refined through a field and through a mesh ("DeepMesh: Differentiable Iso-Surface Extraction",
arXiv 2106.11795): six meshes and their deformed relatives by default, the user's own, ShapeNet at paper scale.
"""

from throughline.claims.deepmesh.claim import FollowsTheSilhouette

__all__ = ["FollowsTheSilhouette"]
