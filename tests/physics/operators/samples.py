"""Hierarchies of spaces, and draws that do not depend on what was drawn before."""

from typing import Any

import skfem
import torch
from torch import Tensor

from throughline.physics.operators import (
    hierarchy,
)

SPACES = hierarchy(skfem.MeshTri.init_lshaped(), 3, dirichlet="all")

FINE = SPACES[-1]

VECTORS = hierarchy(skfem.MeshTri(), 3, skfem.ElementVector(skfem.ElementTriP1()), dirichlet=lambda x: x[0] == 0)


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def seeded(made: Any) -> Any:
    """Random weights that do not depend on what was drawn before, also where they start at one or zero."""
    draw = torch.Generator().manual_seed(5)
    for p in made.parameters():
        p.data = 0.3 * torch.randn(p.shape, generator=draw, dtype=p.dtype)
    return made.double()
