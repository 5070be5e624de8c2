"""Meshes and elements of every kind, with points and functions on them."""

from typing import Any

import numpy as np
import skfem
import torch
from torch import Tensor

from throughline.physics.operators import FunctionSpace

SCALAR = {
    "line P1": (skfem.MeshLine(np.linspace(0, 1, 6)), skfem.ElementLineP1()),
    "line P2": (skfem.MeshLine(np.linspace(0, 1, 6)), skfem.ElementLineP2()),
    "tri P1": (skfem.MeshTri.init_lshaped().refined(1), skfem.ElementTriP1()),
    "tri P2": (skfem.MeshTri().refined(1), skfem.ElementTriP2()),
    "quad Q1": (skfem.MeshQuad().refined(1), skfem.ElementQuad1()),
    "quad Q2": (skfem.MeshQuad().refined(1), skfem.ElementQuad2()),
    "tet P1": (skfem.MeshTet().refined(1), skfem.ElementTetP1()),
    "tet P2": (skfem.MeshTet(), skfem.ElementTetP2()),
    "hex Q1": (skfem.MeshHex().refined(1), skfem.ElementHex1()),
}

VECTOR = {
    "tri vector P1": (skfem.MeshTri().refined(1), skfem.ElementVector(skfem.ElementTriP1())),
    "tri vector P2": (skfem.MeshTri.init_lshaped(), skfem.ElementVector(skfem.ElementTriP2())),
    "tet vector P1": (skfem.MeshTet().refined(1), skfem.ElementVector(skfem.ElementTetP1())),
    "quad vector Q1": (skfem.MeshQuad().refined(1), skfem.ElementVector(skfem.ElementQuad1())),
}

CONFORMING = {
    "tri RT": (skfem.MeshTri().refined(2), skfem.ElementTriRT1()),
    "tri Nédélec": (skfem.MeshTri().refined(2), skfem.ElementTriN1()),
    "tet RT": (skfem.MeshTet().refined(1), skfem.ElementTetRT1()),
    "tet Nédélec": (skfem.MeshTet().refined(1), skfem.ElementTetN1()),
    "quad RT": (skfem.MeshQuad().refined(1), skfem.ElementQuadRT1()),
}

SQUARES = skfem.MeshQuad().refined(2)

BENT = np.stack([SQUARES.p[0] + 0.3 * SQUARES.p[0] * SQUARES.p[1], SQUARES.p[1] + 0.2 * SQUARES.p[0] ** 2])

SHEARED = skfem.MeshQuad(BENT, SQUARES.t)


def made(name: str, **options: Any) -> FunctionSpace:
    return FunctionSpace(*(SCALAR | VECTOR | CONFORMING)[name], **options)


def inside(space: FunctionSpace, count: int = 40) -> Tensor:
    """Points of the mesh, from random cells and random convex weights of their corners."""
    draw = np.random.default_rng(0)
    corners = space.mesh.p[:, space.mesh.t[:, draw.integers(space.mesh.nelements, size=count)]]
    weights = draw.dirichlet(np.ones(corners.shape[1]), count).T
    return torch.from_numpy((corners * weights).sum(1).T.copy())


def affine(x: Tensor) -> Tensor:
    return 1 + x @ torch.arange(1.0, x.shape[1] + 1, dtype=x.dtype)


def affine_vector(x: Tensor) -> Tensor:
    return torch.stack([affine(x) * (k + 1) - x[:, k] for k in range(x.shape[1])], 1)


def constant_vector(x: Tensor) -> Tensor:
    return torch.arange(1.0, x.shape[1] + 1, dtype=x.dtype).expand(len(x), -1)


TRI = skfem.MeshTri().refined(1).with_boundaries({"left": lambda x: x[0] == 0})
