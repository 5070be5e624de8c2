"""Rows of `throughline.core.relaxation`."""

import torch
from tests.contract.part import COMPILER, Bad, Part, normal
from torch import Tensor

from throughline.core.relaxation import straight_through, straight_through_categorical


def rounded(x: Tensor) -> Tensor:
    return straight_through(torch.round, x)


X, INDEX = torch.zeros(2, 3), torch.tensor([0, 2])
STRAIGHT = "the gradient is set to that of something smooth"
CATEGORICAL = {"gradcheck": STRAIGHT, "nan": "the values are those of the draw; logits have only the gradient"}
CATEGORICAL_BAD = (
    Bad(TypeError, r"logits must be floating point, got torch.int64", X.long(), INDEX),
    Bad(ValueError, r"logits must be \(\.\.\., n\) with n >= 1, got shape \(\)", torch.tensor(1.0), 0),
    Bad(ValueError, r"logits must be \(\.\.\., n\) with n >= 1, got shape \(2, 0\)", X[:, :0], 0),
    Bad(TypeError, r"index must be an integer or a tensor of them, got float", X, 1.0),
    Bad(TypeError, r"index must be of integers, got torch.float32", X, INDEX.float()),
    Bad(TypeError, r"index must be of integers, got torch.bool", X, INDEX.bool()),
    Bad(ValueError, r"index must be from 0 to 2, got 3", X, 3),
    Bad(ValueError, r"index must be from 0 to 2, got -1", X, -1),
    Bad(ValueError, r"index must be from 0 to 2, got 0 to 3", X, torch.tensor([0, 3])),
    Bad(ValueError, r"index must be from 0 to 2, got -1 to 0", X, torch.tensor([0, -1])),
    Bad(ValueError, r"index must be \(2,\) or a number, got shape \(3,\)", X, torch.tensor([0, 1, 2])),
)

PARTS = [
    Part(
        straight_through,
        lambda g: (normal(g, 4, 3),),
        variant="rounding",
        call=rounded,
        batched=(0,),
        backend=COMPILER,
        bad=(Bad(TypeError, r"x must be floating point, got torch.int64", X.long()),),
        skips={"gradcheck": STRAIGHT},
    ),
    Part(
        straight_through_categorical,
        lambda g: (normal(g, 4), torch.randint(4, (), generator=g)),
        batched=(0, 1),
        edges={"single": lambda: (torch.ones(1, dtype=torch.float64), torch.tensor(0))},
        bad=CATEGORICAL_BAD,
        skips=CATEGORICAL,
    ),
    Part(
        straight_through_categorical,
        lambda g: (normal(g, 2, 4),),
        {"index": 2},
        batched=(0,),
        edges={"single": lambda: (torch.ones(1, 3, dtype=torch.float64),)},
        bad=(Bad(ValueError, r"index must be from 0 to 3, got 4", index=4),),
        skips=CATEGORICAL,
    ),
]
