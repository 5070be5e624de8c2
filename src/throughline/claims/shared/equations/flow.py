"""Flow past a cylinder in a channel: the Navier–Stokes equations by Taylor–Hood elements."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from throughline.physics.operators import FunctionSpace

__all__ = ["VISCOSITY", "advance", "channel", "inflow", "trajectories"]

SIZE = (2.2, 0.41)  # of the channel; the benchmark of Schäfer and Turek
CENTRE, RADIUS = 0.2, 0.05
VISCOSITY, SPEED = 1e-3, 1.5  # the fastest of the inflow: a Reynolds number of 100
STEP, INNER = 0.025, 5  # time between two states, and steps of the solver in it
STIRRED = 0.3  # of the speed: disturbances that trajectories start with
MODES = 4  # of disturbances, along each side


def channel(levels: int, refined: int = 0) -> list[Any]:
    """Meshes of a channel around a cylinder, ever rounder: nearly nested. Boundaries inlet, outlet and wall."""
    import skfem

    x = np.array([0, 0.07, 0.15, 0.25, 0.35, 0.5, 0.7, 0.95, 1.25, 1.55, 1.85, SIZE[0]])
    mesh = skfem.MeshTri.init_tensor(x, np.array([0, 0.07, 0.15, 0.25, 0.33, SIZE[1]]))
    middle = mesh.p[:, mesh.t].mean(1)
    mesh = mesh.remove_elements(np.flatnonzero((np.abs(middle - CENTRE) < RADIUS).all(0)))
    meshes = [_round(mesh)]
    for _ in range(refined + levels - 1):
        meshes.append(_round(meshes[-1].refined(1)))
    return meshes[refined:]


def _round(mesh: Any) -> Any:
    """The same with the rim of the hole on the circle."""
    import skfem

    p = mesh.p.copy()
    rim = np.unique(mesh.facets[:, mesh.boundary_facets()])
    rim = rim[(np.abs(p[:, rim] - CENTRE) < 2 * RADIUS - 1e-9).all(0)]
    away = p[:, rim] - CENTRE
    p[:, rim] = CENTRE + RADIUS * away / np.linalg.norm(away, axis=0)
    tags = {
        "inlet": lambda x: x[0] < 1e-9,
        "outlet": lambda x: x[0] > SIZE[0] - 1e-9,
        "wall": lambda x: (x[0] > 1e-9) & (x[0] < SIZE[0] - 1e-9),
    }
    return skfem.MeshTri(p, mesh.t).with_boundaries(tags)


def inflow(x: Tensor) -> Tensor:
    """A parabola at the inlet, and rest elsewhere."""
    speed = 4 * SPEED * x[:, 1] * (SIZE[1] - x[:, 1]) / SIZE[1] ** 2
    return torch.stack([torch.where(x[:, 0] < 1e-9, speed, 0), torch.zeros_like(speed)], 1)


def trajectories(
    velocity: "FunctionSpace", pressure: "FunctionSpace", count: int, horizon: int, seed: int
) -> dict[str, Tensor]:
    """Velocities and pressures ``(count, horizon + 1, dim)``, from disturbed creeping flow."""
    draw = np.random.default_rng(seed)
    lift = velocity.interpolate(inflow).numpy()
    creeping = advance(velocity, pressure, lift, lift, step=np.inf, convect=False)[0]
    us, ps = [], []
    for _ in range(count):
        u = np.where(velocity.constrained.numpy(), lift, creeping + stirred(velocity, draw))
        course = []
        for _ in range(horizon + 1):
            for _ in range(INNER):
                u, p = advance(velocity, pressure, u, lift, step=STEP / INNER)
            course.append((u, p))
        us.append(np.stack([u for u, _ in course]))
        ps.append(np.stack([p for _, p in course]))
    return {"velocity": torch.from_numpy(np.stack(us)).float(), "pressure": torch.from_numpy(np.stack(ps)).float()}


def stirred(velocity: "FunctionSpace", draw: np.random.Generator) -> np.ndarray:
    """A few random waves, solenoidal away from walls."""
    amplitude, phase = draw.standard_normal((MODES, MODES)), draw.uniform(0, 2 * np.pi, (MODES, MODES))

    def field(x: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for i in range(MODES):
            for j in range(MODES):
                a, b = np.pi * (i + 1) / SIZE[0], np.pi * (j + 1) / SIZE[1]
                wave = torch.cos(a * x[:, 0] + b * x[:, 1] + phase[i, j]) * amplitude[i, j]
                total = total + torch.stack([b * wave, -a * wave], 1) / (a + b)  # the curl of a wave
        return STIRRED * SPEED * total / MODES**2

    return np.asarray(velocity.interpolate(field).numpy())


def advance(
    velocity: "FunctionSpace",
    pressure: "FunctionSpace",
    u: np.ndarray,
    lift: np.ndarray,
    *,
    step: float,
    convect: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """One semi-implicit step of the Navier–Stokes equations by Taylor–Hood elements: the old velocity convects the new.

    With an infinite step and no convection, Stokes flow.
    """
    import skfem
    from scipy.sparse import bmat
    from skfem.helpers import ddot, div, dot, grad, mul

    basis = velocity.basis
    other = basis.with_element(pressure.element)
    before = basis.interpolate(u)

    @skfem.BilinearForm  # type: ignore[untyped-decorator]
    def momentum(u: Any, v: Any, w: Any) -> Any:
        carried = dot(mul(grad(u), w["before"]), v) if convect else 0.0
        return dot(u, v) / step + carried + VISCOSITY * ddot(grad(u), grad(v))

    divergence = skfem.BilinearForm(lambda u, q, w: div(u) * q).assemble(basis, other)
    inertia = skfem.LinearForm(lambda v, w: dot(w["before"], v) / step).assemble(basis, before=before)
    matrix = bmat([[momentum.assemble(basis, before=before), -divergence.T], [-divergence, None]], "csr")
    load = np.concatenate([inertia, np.zeros(pressure.dim)])
    start = np.concatenate([np.where(velocity.constrained.numpy(), lift, 0), np.zeros(pressure.dim)])
    held = np.flatnonzero(velocity.constrained.numpy())
    found = skfem.solve(*skfem.condense(matrix, load, x=start, D=held))
    return found[: velocity.dim], found[velocity.dim :]
