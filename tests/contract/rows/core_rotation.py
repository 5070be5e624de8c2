"""Rows of `throughline.core.rotation`."""

import torch
from tests.contract.part import COMPILER, Bad, Part, normal
from torch import Generator, Tensor

from throughline.core.rotation import geodesic_distance, rotation_from_6d, rotation_to_6d, so3_exp, so3_log


def turned(generator: Generator) -> Tensor:
    return so3_exp(normal(generator, 3))


def matrix(*name: str) -> tuple[Bad, ...]:
    return tuple(
        bad
        for n in name
        for bad in (
            Bad(
                ValueError,
                rf"{n} must be \(\.\.\., 3, 3\), got shape \(3, 2\)",
                *(EYE[:, :2] if m == n else EYE for m in name),
            ),
            Bad(
                TypeError,
                rf"{n} must be floating point, got torch.int64",
                *(EYE.long() if m == n else EYE for m in name),
            ),
        )
    )


EYE, SIX = torch.eye(3), torch.tensor([1.0, 0.0, 0.5, 0.0, 2.0, 0.0])

PARTS = [
    Part(
        rotation_from_6d,
        lambda g: (normal(g, 6),),
        batched=(0,),
        backend=COMPILER,
        edges={"single": lambda: (SIX.double(),), "parallel": lambda: (torch.tensor([1.0, 2, 3, 2, 4, 6]).double(),)},
        bad=(
            Bad(ValueError, r"x must be \(\.\.\., 6\), got shape \(3,\)", SIX[:3]),
            Bad(ValueError, r"x must be \(\.\.\., 6\), got shape \(\)", SIX[0]),
            Bad(TypeError, r"x must be floating point, got torch.int64", SIX.long()),
        ),
    ),
    Part(
        rotation_to_6d,
        lambda g: (turned(g),),
        batched=(0,),
        edges={"single": lambda: (EYE.double(),)},
        bad=matrix("R"),
    ),
    Part(
        so3_exp,
        lambda g: (normal(g, 3),),
        batched=(0,),
        reference=lambda w: torch.linalg.matrix_exp(
            torch.stack([0 * w[0], -w[2], w[1], w[2], 0 * w[0], -w[0], -w[1], w[0], 0 * w[0]]).view(3, 3)
        ),
        edges={"single": lambda: (SIX[:3].double(),)},
        bad=(
            Bad(ValueError, r"w must be \(\.\.\., 3\), got shape \(2,\)", SIX[:2]),
            Bad(TypeError, r"w must be floating point, got torch.int64", SIX[:3].long()),
        ),
    ),
    Part(
        so3_log,
        lambda g: (turned(g),),
        batched=(0,),
        edges={
            "single": lambda: (EYE.double(),),
            "half turn": lambda: (torch.diag(torch.tensor([1.0, -1, -1])).double(),),
        },
        bad=matrix("R"),
    ),
    Part(
        geodesic_distance,
        lambda g: (turned(g), turned(g)),
        batched=(0, 1),
        edges={
            "single": lambda: (EYE.double(), EYE.double()),
            "half turn": lambda: (EYE.double(), torch.diag(torch.tensor([1.0, -1, -1])).double()),
        },
        bad=(
            *matrix("R1", "R2"),
            Bad(ValueError, r"R1 and R2 must broadcast", EYE.expand(2, 3, 3), EYE.expand(3, 3, 3)),
        ),
    ),
]
