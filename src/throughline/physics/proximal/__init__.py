"""Learned proximal networks: denoisers that are the exact proximal operator of a prior that can be evaluated.

"What's in a Prior? Learned Proximal Networks for Inverse Problems" (arXiv 2310.14344, ICLR 2024). A continuous map is
the proximal operator of some function R exactly when it is the gradient of a convex potential ψ: an input-convex
network gives ψ, autograd its gradient, and convex conjugation R. Trained with proximal matching, R estimates −σ² log p
of the data; in plug-and-play iterations it is part of the objective that falls.
"""

from throughline.physics.proximal.convex_potentials import InputConvexCNN, InputConvexMLP, keep_convex
from throughline.physics.proximal.matching import (
    ProximalMatchingLoss,
    proximal_matching_loss,
    proximal_matching_schedule,
)
from throughline.physics.proximal.network import LearnedProximalNetwork
from throughline.physics.proximal.plug_and_play import PnPResult, pnp_admm, pnp_pgd

__all__ = [
    "InputConvexCNN",
    "InputConvexMLP",
    "LearnedProximalNetwork",
    "PnPResult",
    "ProximalMatchingLoss",
    "keep_convex",
    "pnp_admm",
    "pnp_pgd",
    "proximal_matching_loss",
    "proximal_matching_schedule",
]
