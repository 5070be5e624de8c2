"""What the spon claim learns: the spaces of an equation, solutions of it, and queries on other meshes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from throughline.data import DataError
from throughline.data.cache import kept
from throughline.data.source import Source
from throughline.errors import ThroughlineError
from throughline.lab import require

if TYPE_CHECKING:
    from throughline.physics.operators import FunctionSpace

__all__ = ["Config", "Pairs", "Query", "Task", "check", "load", "on_finer", "plate", "plate_mesh"]

SAME = 1e-6  # of the largest value: solutions that agree
FEATURES, LENGTH = 64, 0.2  # of the random field: waves, and the scale of its correlation


@dataclass(frozen=True)
class Config:
    """Sizes and rates, the same in every arm."""

    problem: Literal["plate", "flow", "beam"] = "plate"  # unless data is given
    levels: int = 3  # meshes of the hierarchy
    refined: int = 0  # of the coarsest mesh, times
    train: int = 224  # solutions
    test: int = 64
    hidden: int = 32  # of spon-mg; that of spon gives as many parameters
    steps: int = 8  # of spon
    smoothing_steps: int = 1
    coarse_steps: int = 4
    batch: int = 8
    updates: int = 800
    lr: float = 8e-3  # of {2e-3, 4e-3, 8e-3, 1.6e-2} the best of spon, and within 1 % of that for spon-mg
    looks: int = 16  # at the test error while training, for the pictures
    horizon: int = 20  # of a flow: steps of the operator in a row
    device: str = "cpu"
    data: Source | None = None


class Pairs(NamedTuple):
    """Inputs ``(N, n)`` and solutions ``(N, dim)``, coefficients in their spaces."""

    inputs: Tensor
    outputs: Tensor


class Query(NamedTuple):
    """Test inputs and solutions on another mesh."""

    inputs: "FunctionSpace"
    outputs: "FunctionSpace"
    pairs: Pairs


class Task(NamedTuple):
    """One operator to be learned."""

    name: str
    inputs: "FunctionSpace"
    spaces: "list[FunctionSpace]"  # of the solutions, the coarsest mesh first
    train: Pairs
    test: Pairs
    boundary: float | Callable[[Tensor], Tensor]
    queries: list[Query]  # the last on the once refined mesh
    trajectories: Tensor | None = None  # (count, steps + 1, dim) to be rolled out, of an operator that advances in time


def check(config: Config) -> None:
    """Read or reject what the units will need, so that a fault is one line before anything runs."""
    require("skfem", extra="physics")
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        raise ThroughlineError(f"device={config.device}: this machine has no GPU that torch can use; --set device=cpu")
    for name, least in (("levels", 1 if config.data is not None else 2), ("train", 1), ("test", 1), ("batch", 1)):
        if getattr(config, name) < least:
            raise ThroughlineError(f"{name} must be at least {least}, got {getattr(config, name)}")
    if config.data is not None:
        load(config, 0)


def load(config: Config, seed: int) -> list[Task]:
    """The operators of a seed, alike in every arm."""
    if config.data is not None:
        return [own(config, config.data, seed)]
    if config.problem == "plate":
        return [plate(config, seed)]
    from throughline.claims.spon import simulations

    return simulations.flow(config, seed) if config.problem == "flow" else [simulations.beam(config, seed)]


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


def plate(config: Config, seed: int) -> Task:
    """−∇·(a ∇u) = 1 with u = 0 on the outer boundary: from the logarithm of a, a random field, to u.

    Solved on the once refined mesh; all coarser ones take their values at the nodes.
    """
    from throughline.physics.operators import hierarchy

    spaces = hierarchy(
        plate_mesh().refined(config.refined) if config.refined else plate_mesh(), config.levels + 1, dirichlet="outer"
    )
    count = config.train + config.test
    key = {"problem": "plate", "levels": config.levels, "refined": config.refined, "count": count, "seed": seed}
    found = kept("spon", key, lambda: solved(spaces[-1], count, seed))
    fields, solutions = found["inputs"], found["outputs"]
    split = [slice(config.train), slice(config.train, None)]

    def at(space: "FunctionSpace") -> list[Pairs]:
        n = space.dim  # a refined mesh keeps the nodes of the coarser one in front
        return [Pairs(fields[rows, :n], solutions[rows, :n]) for rows in split]

    train, test = at(spaces[-2])
    queries = [Query(space, space, at(space)[1]) for space in spaces]
    return Task("solution", spaces[-2], spaces[:-1], train, test, 0.0, queries)


def own(config: Config, source: Source, seed: int) -> Task:
    """The user's simulations; a quarter of them to test on. Boundaries of the mesh on which all solutions to learn from
    agree are prescribed, to these values.
    """
    from throughline.physics.operators import FunctionSpace

    meshes, inputs, outputs = source.simulation()
    rows = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
    count = len(rows) // 4
    train, test = (Pairs(inputs[some], outputs[some]) for some in (rows[count:], rows[:count]))
    if not (train.outputs != 0).any() or not (test.outputs != 0).flatten(1).any(1).all():
        raise DataError(
            f"{source.path}: outputs must not be zero everywhere in a row; a relative error has no sense there"
        )
    same = (train.outputs.amax(0) - train.outputs.amin(0)) <= SAME * train.outputs.abs().max()
    finest = meshes[-1]
    nodes = {name: np.unique(finest.facets[:, np.asarray(ix)]) for name, ix in (finest.boundaries or {}).items()}
    names = [name for name, of in nodes.items() if len(of) and bool(same[torch.from_numpy(of)].all())]
    for mesh in meshes[:-1]:
        missing = [name for name in names if name not in (mesh.boundaries or {})]
        if missing:
            raise DataError(
                f"{source.path}: every mesh must name the boundary {missing[0]}, where all solutions agree, and "
                f"the one of {mesh.p.shape[1]} nodes does not"
            )
    spaces = [FunctionSpace(mesh, dirichlet=names or None) for mesh in meshes]
    space, values = spaces[-1], train.outputs[0].double()

    def prescribed(x: Tensor) -> Tensor:
        return torch.from_numpy(space.values_at(x, nearest=True) @ values.numpy())

    fine = FunctionSpace(finest.refined(1), dirichlet=names or None)
    queries = [Query(space, space, test), on_finer(space, space, fine, fine, test)]
    return Task("solution", space, spaces, train, test, prescribed if names else 0.0, queries)


def on_finer(
    inputs: "FunctionSpace",
    outputs: "FunctionSpace",
    fine_inputs: "FunctionSpace",
    fine_outputs: "FunctionSpace",
    pairs: Pairs,
) -> Query:
    """The same functions on finer meshes."""
    from throughline.physics.operators import prolongation

    maps = (prolongation(inputs, fine_inputs), prolongation(outputs, fine_outputs))
    there = ((m @ part.double().numpy().T).T for m, part in zip(maps, pairs, strict=True))
    return Query(fine_inputs, fine_outputs, Pairs(*(torch.from_numpy(part.copy()).float() for part in there)))


def solved(space: "FunctionSpace", count: int, seed: int) -> dict[str, Tensor]:
    """Random fields at the nodes of a space, and the solutions to them."""
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
