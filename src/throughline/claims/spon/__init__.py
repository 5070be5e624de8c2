"""Message passing on a hierarchy of meshes against one mesh ("Structure-Preserving Operator Learning", arXiv
2410.01065): diffusion in an L-shaped plate with a hole by default, the user's simulations, flow past a cylinder and a
hyperelastic beam at paper scale.
"""

from throughline.claims.spon.claim import KeepsItsStructure

__all__ = ["KeepsItsStructure"]
