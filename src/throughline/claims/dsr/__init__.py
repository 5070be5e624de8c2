"""Bodies of clothed people ("Learning to Regress Bodies from Images using Differentiable Semantic Rendering", arXiv
2110.03480): generated people by default, the user's pictures with their parsing, and photographs with SMPL bodies at
paper scale.
"""

from throughline.claims.dsr.claim import SeesBodiesInClothes

__all__ = ["SeesBodiesInClothes"]
