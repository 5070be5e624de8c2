"""Triangle meshes drawn into images, hard by a z-buffer and soft with gradients everywhere, in plain PyTorch.

"Learning to Regress Bodies from Images using Differentiable Semantic Rendering" (arXiv 2110.03480), which renders by
"Soft Rasterizer" (arXiv 1904.01786). Cameras are those of `throughline.core.camera`: pixel centres sit on integers.
"""

from throughline.core.raster.blend import SoftImage, soft_rasterize
from throughline.core.raster.distance import distance_transform
from throughline.core.raster.hard import Fragments, interpolate, rasterize, visible_vertices
from throughline.core.raster.silhouette import soft_silhouette

__all__ = [
    "Fragments",
    "SoftImage",
    "distance_transform",
    "interpolate",
    "rasterize",
    "soft_rasterize",
    "soft_silhouette",
    "visible_vertices",
]
