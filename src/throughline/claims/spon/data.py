"""What the spon claim learns by default or for its user: diffusion in a plate, or simulations of the user's own."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from throughline.claims.shared.equations.diffusion import plate_mesh, solved
from throughline.claims.spon.config import Config
from throughline.claims.spon.tasks import Pairs, Query, Task, on_finer
from throughline.data import DataError, Source
from throughline.data.cache import kept

if TYPE_CHECKING:
    from throughline.physics.operators import FunctionSpace

__all__ = ["own", "plate"]

SAME = 1e-6  # of the largest value: solutions that agree


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


def own(source: Source, seed: int) -> Task:
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
