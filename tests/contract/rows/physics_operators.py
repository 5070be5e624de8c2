"""Rows of `throughline.physics.operators`."""

from collections.abc import Callable
from typing import Any

import skfem
import torch
from tests.contract.part import Bad, Part, normal
from torch import Tensor, nn

from throughline.physics.operators import (
    Decoder,
    Encoder,
    FunctionSpace,
    GraphProcessor,
    MultigridProcessor,
    OperatorNetwork,
    hierarchy,
)

NOT_PARTS = {
    "throughline.physics.operators.hierarchy": "makes spaces of a mesh; no tensor goes in",
    "throughline.physics.operators.prolongation": "gives a matrix of SciPy's; Decoder is its map of tensors",
}
SPACES = hierarchy(skfem.MeshTri(), 2, dirichlet=lambda x: x[0] == 0)
COARSE, FINE = SPACES
VECTOR = FunctionSpace(FINE.mesh, skfem.ElementVector(skfem.ElementTriP1()), dirichlet="all")
POINTS = torch.tensor([[0.1, 0.2], [0.9, 0.3], [1.0, 1.0]], dtype=torch.float64)
Q = len(FINE.quadrature_points)
DRAWN = {"untouched": "weights start as torch.nn draws them, from the global generator"}
SPARSE = {"fullgraph": "sparse products stay outside of the compiler's graphs"}


@torch.compiler.disable
def plate(**options: Any) -> FunctionSpace:
    return FunctionSpace(FINE.mesh, **options)


def space(name: str) -> Callable[..., Any]:
    """A method of a new space, of its coefficients or values."""

    def call(x: Tensor, *rest: Tensor, **options: Any) -> Tensor:
        made: Tensor = getattr(plate(**options), name)(x, *rest)
        return made

    return call


def lift(x: Tensor) -> Tensor:
    return 1 + x[:, 1] / 3


def full(*size: int) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: (torch.ones(size, dtype=torch.float64),)


def weights(net: nn.Module) -> None:
    draw = torch.Generator().manual_seed(0)
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=draw, dtype=torch.float64).to(p) / 3


PARTS = [
    Part(
        FunctionSpace,
        lambda g: (normal(g, FINE.dim),),
        variant="norm",
        arguments=("coefficients",),
        call=space("norm"),
        batched=(0,),
        edges={"single": full(FINE.dim)},
        bad=(
            Bad(ValueError, r"coefficients must be \(\.\.\., 9\), got shape \(8,\)", torch.ones(8)),
            Bad(TypeError, r"coefficients must be floating point, got torch\.int64", torch.ones(9, dtype=torch.int64)),
            Bad(ValueError, r'dirichlet must name boundaries .* or be "all", got \'left\'', dirichlet="left"),
        ),
        reference=lambda c: (c @ FINE.mass.to_dense() @ c).sqrt(),
        skips=SPARSE,
    ),
    Part(
        FunctionSpace,
        lambda g: (normal(g, Q),),
        {"dirichlet": "all"},
        variant="project",
        arguments=("f",),
        call=space("project"),
        batched=(0,),
        edges={"single": full(Q)},
        bad=(
            Bad(ValueError, rf"f must be \(\.\.\., {Q}\), a value at each quadrature point", torch.ones(Q - 1)),
            Bad(ValueError, rf"f must be finite, got {Q} values that are not", torch.full((Q,), torch.nan)),
        ),
        reference=lambda f: torch.linalg.solve(FINE.mass.to_dense(), torch.from_numpy(FINE.load.toarray()) @ f),
        skips=SPARSE,
    ),
    Part(
        FunctionSpace,
        lambda g: (normal(g, FINE.dim), POINTS),
        variant="evaluate",
        arguments=("coefficients", "points"),
        call=space("evaluate"),
        batched=(0,),
        constant=(1,),
        stretched=(0,),
        edges={"single": lambda: (torch.ones(FINE.dim, dtype=torch.float64), POINTS[:1])},
        bad=(
            Bad(
                ValueError,
                r"points must lie in the mesh, got 1 outside of it, the first \[2\.0, 2\.0\]",
                torch.ones(9),
                torch.tensor([[2.0, 2.0]]),
            ),
        ),
        tolerance=(1e-4, 6e-2),
        skips=SPARSE,
    ),
    Part(
        Encoder,
        lambda g: (normal(g, FINE.dim),),
        {"space": COARSE, "source": FINE},
        batched=(0,),
        edges={"single": full(FINE.dim)},
        bad=(
            Bad(TypeError, r"space must be a FunctionSpace, got int", space=3),
            Bad(ValueError, r"values must be \(\.\.\., 9\)", torch.ones(4)),
            Bad(ValueError, r"values must be finite, got 9 values", torch.full((9,), torch.inf)),
        ),
        skips=SPARSE,
    ),
    Part(
        Encoder,
        lambda g: (normal(g, Q),),
        {"space": FINE},
        variant="of values",
        batched=(0,),
        edges={"single": full(Q)},
        bad=(Bad(ValueError, rf"f must be \(\.\.\., {Q}\)", torch.ones(2)),),
        skips=SPARSE,
    ),
    Part(
        Decoder,
        lambda g: (normal(g, FINE.dim),),
        {"space": FINE, "points": POINTS},
        variant="at points",
        batched=(0,),
        edges={"single": full(FINE.dim)},
        bad=(
            Bad(ValueError, r"points must lie in the mesh, got 3 outside", points=POINTS + 1),
            Bad(TypeError, r"points must be a tensor or a FunctionSpace, got list", points=[[0.0, 0.0]]),
            Bad(ValueError, r"coefficients must be \(\.\.\., 9\)", torch.ones(4)),
        ),
        skips=SPARSE,
    ),
    Part(
        Decoder,
        lambda g: (normal(g, VECTOR.dim),),
        {"space": VECTOR, "points": COARSE},
        variant="of vectors at nodes",
        batched=(0,),
        edges={"single": full(VECTOR.dim)},
        bad=(Bad(ValueError, r"coefficients must be \(\.\.\., 18\)", torch.ones(4)),),
        skips=SPARSE,
    ),
    Part(
        GraphProcessor,
        lambda g: (normal(g, FINE.dim, 2),),
        {"space": FINE, "in_channels": 2, "out_channels": 1, "hidden": 3, "steps": 2},
        variant="two steps",
        mixed=True,
        prepare=weights,
        batched=(0,),
        edges={"single": full(FINE.dim, 2)},
        tolerance=(1e-3, 2e-1),
        bad=(
            Bad(ValueError, r"steps must be at least 1, got 0", steps=0),
            Bad(ValueError, r"x must be \(\.\.\., 9, 2\), got shape \(9, 1\)", torch.ones(9, 1)),
        ),
        skips=SPARSE | DRAWN,
    ),
    Part(
        MultigridProcessor,
        lambda g: (normal(g, FINE.dim, 1),),
        {"spaces": SPACES, "hidden": 2, "coarse_steps": 1},
        variant="two levels",
        mixed=True,
        prepare=weights,
        batched=(0,),
        edges={"single": full(FINE.dim, 1)},
        tolerance=(1e-3, 2e-1),
        bad=(
            Bad(ValueError, r"spaces must be at least two, got 1", spaces=[FINE]),
            Bad(ValueError, r"spaces must go from coarse to fine, got 9, 4 unknowns", spaces=[FINE, COARSE]),
            Bad(ValueError, r"coarse_steps must be at least 1, got 0", coarse_steps=0),
        ),
        skips=SPARSE | DRAWN,
    ),
    Part(
        OperatorNetwork,
        lambda g: (normal(g, COARSE.dim),),
        {
            "input_space": COARSE,
            "output_space": FINE,
            "processor": nn.Sequential(nn.Linear(1, 2), nn.Tanh(), nn.Linear(2, 1)).double(),
            "boundary": lift,
        },
        variant="any processor",
        mixed=True,
        prepare=weights,
        batched=(0,),
        edges={"single": full(COARSE.dim)},
        tolerance=(1e-4, 6e-2),
        bad=(
            Bad(TypeError, r"processor must be an nn.Module, got str", processor="mlp"),
            Bad(ValueError, r"boundary must be finite, got 3 values", boundary=float("nan")),
            Bad(ValueError, r"coefficients must be \(\.\.\., 4\), got shape \(5,\)", torch.ones(5)),
            Bad(
                ValueError,
                r"processor must return shape \(9, 1\), got shape \(9, 3\)",
                processor=nn.Linear(1, 3).double(),
            ),
        ),
        skips=SPARSE,
    ),
]
