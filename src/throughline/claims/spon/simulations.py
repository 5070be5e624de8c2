"""The spon claim at the paper's scale: flow past a cylinder and a hyperelastic beam, solved by scikit-fem."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from throughline.claims.spon.data import Config, Pairs, Query, Task, on_finer
from throughline.data.cache import kept

if TYPE_CHECKING:
    from throughline.physics.operators import FunctionSpace

__all__ = ["advance", "beam", "beam_space", "channel", "deformed", "flow"]

SIZE = (2.2, 0.41)  # of the channel; the benchmark of Schäfer and Turek
CENTRE, RADIUS = 0.2, 0.05
VISCOSITY, SPEED = 1e-3, 1.5  # the fastest of the inflow: a Reynolds number of 100
STEP, INNER = 0.025, 5  # time between two states, and steps of the solver in it
STIRRED = 0.3  # of the speed: disturbances that trajectories start with
MU, LAMBDA = 1.0, 2.0  # of the beam's material
LENGTH, HEIGHT, LOAD = 1.0, 0.2, 0.03
MODES = 4
NEWTON, TOLERANCE, ROUNDING, PUSHES = 20, 1e-9, 1e-14, 4


# ---- flow past a cylinder ----


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


def flow(config: Config, seed: int) -> list[Task]:
    """From the velocity to that of a moment later, and to the pressure; trajectories of ``horizon`` moments."""
    import skfem

    from throughline.physics.operators import FunctionSpace

    meshes = channel(config.levels, config.refined)
    finer = meshes[-1].refined(1)
    vector, scalar = skfem.ElementVector(skfem.ElementTriP2()), skfem.ElementTriP1()
    velocities = [FunctionSpace(mesh, vector, dirichlet=["inlet", "wall"]) for mesh in (*meshes, finer)]
    pressures = [FunctionSpace(mesh, scalar) for mesh in (*meshes, finer)]
    fine_velocity, fine_pressure = velocities.pop(), pressures.pop()
    velocity, pressure = velocities[-1], pressures[-1]
    train, test = (-(-count // config.horizon) for count in (config.train, config.test))
    key = {"problem": "flow", "levels": config.levels, "refined": config.refined, "seed": seed}
    key |= {"count": train + test, "horizon": config.horizon}
    found = kept("spon", key, lambda: trajectories(velocity, pressure, train + test, config.horizon, seed))
    u, p = found["velocity"], found["pressure"]
    split = (slice(train), slice(train, None))

    def pairs(outputs: Tensor) -> list[Pairs]:
        return [Pairs(u[rows, :-1].flatten(0, 1), outputs[rows].flatten(0, 1)) for rows in split]

    tasks = []
    for name, spaces, fine, outputs in (
        ("velocity", velocities, fine_velocity, u[:, 1:]),
        ("pressure", pressures, fine_pressure, p[:, :-1]),
    ):
        learn, ask = pairs(outputs)
        queries = [
            Query(velocity, spaces[-1], ask),
            on_finer(velocity, spaces[-1], fine_velocity, fine, ask),
        ]
        moving = u[split[1]] if name == "velocity" else None
        tasks.append(Task(name, velocity, spaces, learn, ask, inflow if moving is not None else 0.0, queries, moving))
    return tasks


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


# ---- a hyperelastic beam ----


def beam_space(mesh: Any) -> "FunctionSpace":
    """Displacements of a beam that is clamped on the left."""
    import skfem

    from throughline.physics.operators import FunctionSpace

    return FunctionSpace(mesh, skfem.ElementVector(skfem.ElementTriP1()), dirichlet=lambda x: x[0] < 1e-9)


def beam(config: Config, seed: int) -> Task:
    """From a random load to the displacement of a compressible neo-Hookean beam, in plane strain."""
    import skfem

    coarse = skfem.MeshTri.init_tensor(np.linspace(0, LENGTH, 11), np.linspace(0, HEIGHT, 3)).refined(config.refined)
    spaces = [beam_space(coarse.refined(level)) for level in range(config.levels + 1)]
    fine, space = spaces.pop(), spaces[-1]
    count = config.train + config.test
    key = {"problem": "beam", "levels": config.levels, "refined": config.refined, "count": count, "seed": seed}
    found = kept("spon", key, lambda: bent(space, count, seed))
    whole = Pairs(found["inputs"], found["outputs"])
    train, test = (Pairs(*(part[rows] for part in whole)) for rows in (slice(config.train), slice(config.train, None)))
    queries = [Query(space, space, test), on_finer(space, space, fine, fine, test)]
    return Task("displacement", space, spaces, train, test, 0.0, queries)


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
