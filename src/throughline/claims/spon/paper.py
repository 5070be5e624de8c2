"""The spon claim at the paper's scale: flow past a cylinder and a hyperelastic beam."""

from torch import Tensor

from throughline.claims.shared.equations.beam import beam_mesh, beam_space, bent
from throughline.claims.shared.equations.flow import channel, inflow, trajectories
from throughline.claims.spon.config import Config
from throughline.claims.spon.tasks import Pairs, Query, Task, on_finer
from throughline.data.cache import kept

__all__ = ["load"]


def load(config: Config, seed: int) -> list[Task]:
    """The operators of a flow, or that of a beam."""
    return _flow(config, seed) if config.problem == "flow" else [_beam(config, seed)]


def _flow(config: Config, seed: int) -> list[Task]:
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


def _beam(config: Config, seed: int) -> Task:
    """From a random load to the displacement of a compressible neo-Hookean beam, in plane strain."""
    coarse = beam_mesh().refined(config.refined)
    spaces = [beam_space(coarse.refined(level)) for level in range(config.levels + 1)]
    fine, space = spaces.pop(), spaces[-1]
    count = config.train + config.test
    key = {"problem": "beam", "levels": config.levels, "refined": config.refined, "count": count, "seed": seed}
    found = kept("spon", key, lambda: bent(space, count, seed))
    whole = Pairs(found["inputs"], found["outputs"])
    train, test = (Pairs(*(part[rows] for part in whole)) for rows in (slice(config.train), slice(config.train, None)))
    queries = [Query(space, space, test), on_finer(space, space, fine, fine, test)]
    return Task("displacement", space, spaces, train, test, 0.0, queries)
