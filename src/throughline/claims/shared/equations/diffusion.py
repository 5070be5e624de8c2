"""Diffusion in an L-shaped plate with a square hole, under random conductivities."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from throughline.physics.operators import FunctionSpace

__all__ = ["plate_mesh", "solved"]

FEATURES, LENGTH = 64, 0.2  # of the random field: waves, and the scale of its correlation


def plate_mesh() -> Any:
    """The coarsest mesh of an L-shaped plate with a square hole, with its boundaries "outer" and "hole"."""
    import skfem

    square = skfem.MeshTri.init_sqsymmetric().refined(2)
    x, y = square.p[:, square.t].mean(1)
    gone = ((x > 0.5) & (y > 0.5)) | ((abs(x - 0.25) < 0.13) & (abs(y - 0.25) < 0.13))
    plate = square.remove_elements(np.flatnonzero(gone))

    def hole(x: np.ndarray) -> np.ndarray:
        near: np.ndarray = np.abs(x - 0.25).max(0) < 0.2
        return near

    return plate.with_boundaries({"hole": hole, "outer": lambda x: ~hole(x)})


def solved(space: "FunctionSpace", count: int, seed: int) -> dict[str, Tensor]:
    """Random fields log a at the nodes of a space, and the solutions of −∇·(a ∇u) = 1 with u = 0 where it is held."""
    import skfem

    draw = np.random.default_rng(seed)

    @skfem.BilinearForm  # type: ignore[untyped-decorator]
    def stiffness(u: Any, v: Any, w: Any) -> Any:
        return w["a"] * (u.grad * v.grad).sum(0)

    basis = space.basis
    places = np.asarray(basis.global_coordinates())
    load = skfem.LinearForm(lambda v, w: 1.0 * v).assemble(basis)
    inner = np.flatnonzero(~space.constrained.numpy())
    inputs, outputs = np.empty((count, space.dim)), np.zeros((count, space.dim))
    for i in range(count):
        waves, phases = draw.standard_normal((2, FEATURES)) / LENGTH, draw.uniform(0, 2 * np.pi, FEATURES)

        def field(x: np.ndarray, waves: np.ndarray = waves, phases: np.ndarray = phases) -> np.ndarray:
            made = np.zeros(x.shape[1:])
            for wave, phase in zip(waves.T, phases, strict=True):
                made += np.cos(np.tensordot(wave, x, 1) + phase)
            return np.asarray(made * np.sqrt(2 / FEATURES))

        matrix = stiffness.assemble(basis, a=np.exp(field(places)))
        inputs[i] = field(space.coordinates.numpy().T)
        outputs[i, inner] = skfem.solve(matrix[inner][:, inner], load[inner])
    return {"inputs": torch.from_numpy(inputs).float(), "outputs": torch.from_numpy(outputs).float()}
