"""Operators between function spaces, learned on the domain's own mesh, with boundary conditions met exactly.

"Structure-Preserving Operator Learning" (arXiv 2410.01065, 2024): an operator is S = D ∘ P ∘ E, where the encoder E and
the decoder D are finite-element discretisations that nobody learns, and the processor P is a network between
coefficients. The spaces are scikit-fem's; their boundary conditions, continuity and evaluation anywhere come along.
"""

from throughline.physics.operators.function_space import FunctionSpace
from throughline.physics.operators.network import Decoder, Encoder, OperatorNetwork
from throughline.physics.operators.processors import GraphProcessor, MultigridProcessor
from throughline.physics.operators.transfers import hierarchy, prolongation

__all__ = [
    "Decoder",
    "Encoder",
    "FunctionSpace",
    "GraphProcessor",
    "MultigridProcessor",
    "OperatorNetwork",
    "hierarchy",
    "prolongation",
]
