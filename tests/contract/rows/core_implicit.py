"""Rows of `throughline.core.implicit`."""

import torch
from tests.contract.part import Bad, Part, normal
from torch import Tensor

from throughline.core.implicit import conjugate_gradient, neumann_series

MATRIX = torch.tensor([[4.0, 1.0, 0.5], [1.0, 3.0, 0.0], [0.5, 0.0, 2.0]], dtype=torch.float64)


def product(p: Tensor) -> Tensor:
    """By elements, so that it is the same inside autocast."""
    return (p.unsqueeze(-2) * MATRIX.to(p.dtype)).sum(-1)


def solve(b: Tensor, **options: object) -> Tensor:
    return conjugate_gradient(product, b, **{"batch_dims": max(torch.as_tensor(b).dim() - 1, 0), **options})  # type: ignore[arg-type]


def series(b: Tensor, **options: object) -> Tensor:
    return neumann_series(product, b, **{"lr": 0.3, **options})  # type: ignore[arg-type]


ONES = torch.ones(3, dtype=torch.float64)
COUNTS = tuple(Bad(ValueError, f"steps must be at least 1, got {n}", steps=n) for n in (0, -1))
TREES = (
    Bad(TypeError, r"b must be floating point, got torch\.int64", ONES.long()),
    Bad(ValueError, "b must hold at least one tensor, got an empty dict", do=lambda f: conjugate_gradient(product, {})),
    Bad(TypeError, r"b must be tensors .*, got float", do=lambda f: neumann_series(product, [1.0], lr=0.1)),
)
PARTS = [
    Part(
        conjugate_gradient,
        lambda g: (normal(g, 3),),
        {"steps": 3, "tol": 1e-12},
        call=solve,
        batched=(0,),
        reference=lambda b: torch.linalg.solve(MATRIX, b),
        bad=(
            *COUNTS,
            *TREES,
            *(Bad(ValueError, f"tol must be positive and finite, got {t}", tol=t) for t in (0.0, -1.0, float("nan"))),
            Bad(ValueError, r"init must have the shapes of b, got \(2,\) for \(3,\)", init=ONES[:2]),
            Bad(ValueError, "init must have the structure of b", init=[ONES]),
            *(Bad(ValueError, f"batch_dims must be from 0 to .*, got {n}", batch_dims=n) for n in (-1, 2)),
        ),
        edges={"single": lambda: (ONES[:1].expand(3) * 2,)},
        skips={
            "fullgraph": "a system that is not positive definite is told by a warning, which looks at the result",
        },
    ),
    Part(
        neumann_series,
        lambda g: (normal(g, 3),),
        {"steps": 60},
        call=series,
        batched=(0,),
        reference=lambda b: torch.linalg.solve(MATRIX, b),
        bad=(
            *COUNTS,
            *TREES,
            *(Bad(ValueError, f"lr must be positive and finite, got {lr}", lr=lr) for lr in (0.0, -1.0, float("inf"))),
        ),
        edges={"single": lambda: (ONES[:1].expand(3) * 2,)},
    ),
]
