"""Meshes out of implicit fields, with gradients, and the distances that such fields are taught.

"DeepMesh: Differentiable Iso-Surface Extraction" (arXiv 2106.11795, 2021; first as "MeshSDF", arXiv 2006.03997): when
a field f rises by δf, its surface moves by −δf / |∇f| along the normal. So marching cubes needs no derivative: the mesh
is extracted without gradients, and each vertex is attached to the field by the implicit function theorem. Any loss on
the mesh then reaches a latent code, a network or whatever else f depends on, and handles may open and close.

The other way is a grid of learned weights around marching cubes: FlexiCubes (in kaolin) has sharper edges on coarse
grids, and gradients that end at the grid.
"""

from throughline.geometry.isosurface.cubes import marching_cubes
from throughline.geometry.isosurface.decoder import DeepSDF
from throughline.geometry.isosurface.distance import signed_distance
from throughline.geometry.isosurface.layer import attach, extract_surface
from throughline.geometry.isosurface.sampling import chamfer_distance, sample_sdf, sample_surface
from throughline.geometry.isosurface.tracker import SurfaceTracker

__all__ = [
    "DeepSDF",
    "SurfaceTracker",
    "attach",
    "chamfer_distance",
    "extract_surface",
    "marching_cubes",
    "sample_sdf",
    "sample_surface",
    "signed_distance",
]
