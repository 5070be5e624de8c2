"""A hyperelastic beam: a compressible neo-Hookean material in plane strain, clamped on the left."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from throughline.physics.operators import FunctionSpace

__all__ = ["LAMBDA", "MU", "beam_mesh", "beam_space", "bent", "deformed"]

MU, LAMBDA = 1.0, 2.0  # of the beam's material
LENGTH, HEIGHT, LOAD = 1.0, 0.2, 0.03
MODES = 4  # of loads
NEWTON, TOLERANCE, ROUNDING, PUSHES = 20, 1e-9, 1e-14, 4


def beam_space(mesh: Any) -> "FunctionSpace":
    """Displacements of a beam that is clamped on the left."""
    import skfem

    from throughline.physics.operators import FunctionSpace

    return FunctionSpace(mesh, skfem.ElementVector(skfem.ElementTriP1()), dirichlet=lambda x: x[0] < 1e-9)


def beam_mesh() -> Any:
    """The coarsest mesh of the beam."""
    import skfem

    return skfem.MeshTri.init_tensor(np.linspace(0, LENGTH, 11), np.linspace(0, HEIGHT, 3))


def bent(space: "FunctionSpace", count: int, seed: int) -> dict[str, Tensor]:
    """Loads, a few random waves along the beam, and the displacements under them."""
    draw = np.random.default_rng(seed)
    loads, found = np.empty((2, count, space.dim))
    for i in range(count):
        size, phase = draw.standard_normal((2, MODES)), draw.uniform(0, 2 * np.pi, (2, MODES))

        def load(x: Tensor, size: np.ndarray = size, phase: np.ndarray = phase) -> Tensor:
            rows = [
                sum(size[k, m] * torch.cos(np.pi * m * x[:, 0] / LENGTH + phase[k, m]) for m in range(MODES))
                for k in range(2)
            ]
            return LOAD * torch.stack(rows, 1)

        loads[i] = space.interpolate(load).numpy()
        found[i] = deformed(space, loads[i])
    return {"inputs": torch.from_numpy(loads).float(), "outputs": torch.from_numpy(found).float()}


def deformed(space: "FunctionSpace", load: np.ndarray) -> np.ndarray:
    """Newton's method on the weak equilibrium ∫ P(F) : ∇v = ∫ f · v, in a few pushes up to the whole load.

    P = μ (F − F⁻ᵀ) + λ ln(det F) F⁻ᵀ.
    """
    import skfem
    from skfem.helpers import ddot, det, dot, grad, identity, inv, mul, trace, transpose

    basis = space.basis
    force = skfem.LinearForm(lambda v, w: dot(w["f"], v)).assemble(basis, f=basis.interpolate(load))
    free = np.flatnonzero(~space.constrained.numpy())

    @skfem.LinearForm  # type: ignore[untyped-decorator]
    def inner(v: Any, w: Any) -> Any:
        f = grad(w["u"]) + identity(grad(w["u"]))
        back = transpose(inv(f))
        return ddot(MU * (f - back) + LAMBDA * np.log(det(f)) * back, grad(v))

    @skfem.BilinearForm  # type: ignore[untyped-decorator]
    def tangent(u: Any, v: Any, w: Any) -> Any:
        f = grad(w["u"]) + identity(grad(w["u"]))
        inverse = inv(f)
        back, way = transpose(inverse), grad(u)
        turned = mul(mul(back, transpose(way)), back)
        stress = MU * way + (MU - LAMBDA * np.log(det(f))) * turned + LAMBDA * trace(mul(inverse, way)) * back
        return ddot(stress, grad(v))

    u = np.zeros(space.dim)
    for share in np.linspace(0, 1, PUSHES + 1)[1:]:
        for _ in range(NEWTON):
            state = basis.interpolate(u)
            with np.errstate(invalid="ignore"):
                rest = share * force - inner.assemble(basis, u=state)
            size = np.linalg.norm(rest[free])
            if size <= TOLERANCE * np.linalg.norm(force[free]) + ROUNDING * MU:
                break
            if not np.isfinite(size):
                raise ArithmeticError("the beam found no equilibrium: the load turned it inside out")
            matrix = tangent.assemble(basis, u=state)
            u[free] += skfem.solve(matrix[free][:, free], rest[free])
        else:
            raise ArithmeticError(f"the beam found no equilibrium in {NEWTON} steps of Newton's method")
    return u
