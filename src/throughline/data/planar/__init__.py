"""Planar point sets with exact labels: convex hulls, Delaunay triangulations and tours ("Pointer Networks", arXiv
1506.03134, section 3), their published text format, and how predictions are scored.
"""

from throughline.data.planar.files import PlanarBatch, read_planar
from throughline.data.planar.problems import convex_hull, delaunay, label_planar, make_planar, solve_tsp, tour_length
from throughline.data.planar.scores import hull_scores, triangulation_scores

__all__ = [
    "PlanarBatch",
    "convex_hull",
    "delaunay",
    "hull_scores",
    "label_planar",
    "make_planar",
    "read_planar",
    "solve_tsp",
    "tour_length",
    "triangulation_scores",
]
