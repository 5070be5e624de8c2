"""What the spon claim learns: an operator between spaces, pairs of it, and queries on other meshes."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from throughline.physics.operators import FunctionSpace

__all__ = ["Pairs", "Query", "Task", "on_finer"]


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
