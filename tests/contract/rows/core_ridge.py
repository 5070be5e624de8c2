"""Rows of `throughline.core.ridge`."""

import numpy as np
import torch
from sklearn.linear_model import Ridge
from tests.contract.part import COMPILER, Bad, Part, normal
from torch import Tensor

from throughline.core.ridge import RecursiveRidge, ridge


def scikit_ridge(x: Tensor, y: Tensor) -> Tensor:
    return torch.from_numpy(np.atleast_2d(Ridge(alpha=0.7, fit_intercept=False, solver="svd").fit(x, y).coef_).T)


def learn(module: RecursiveRidge) -> RecursiveRidge:
    generator = torch.Generator().manual_seed(7)
    return module.update(normal(generator, 6, 3), normal(generator, 6, 2))


PENALTY = tuple(
    Bad(ValueError, rf"penalty must be positive and finite, got {value}", penalty=value)
    for value in (0.0, -1.0, float("inf"), float("nan"))
)
ONES = torch.ones(2, 3, dtype=torch.float64)
RIDGE = [
    Part(
        ridge,
        lambda g, n=n: (normal(g, n, 3), normal(g, n, 2)),
        {"penalty": 0.7},
        variant=form,
        batched=(0, 1),
        reference=scikit_ridge,
        backend=COMPILER if form == "dual" else "aot_eager",
        bad=(
            *PENALTY,
            Bad(TypeError, r"x must be floating point, got torch.int64", ONES.long(), ONES),
            Bad(ValueError, r"got \(2, 3\) and \(3, 2\)", ONES, ONES.mT),
        ),
    )
    for form, n in (("primal", 5), ("dual", 2))
]
RECURSIVE = [
    Part(
        RecursiveRidge,
        lambda g: (normal(g, 3),),
        {"in_features": 3, "penalty": 0.7, "form": form},
        variant=form,
        prepare=learn,
        batched=(0,),
        own_precision=True,
        edges={"single": lambda: (ONES[:1],)},
        bad=(
            *PENALTY,
            Bad(ValueError, r"form must be 'information' or 'covariance', got 'dense'", form="dense"),
            Bad(ValueError, r"x must be \(\.\.\., 3\), got shape \(4,\)", torch.ones(4)),
            Bad(ValueError, r"x must be \(n, 3\), got shape \(3,\)", do=lambda m: m.update(ONES[0], ONES)),
            Bad(ValueError, r"y must be \(2, c\) to fit x, got shape \(1, 3\)", do=lambda m: m.update(ONES, ONES[:1])),
            Bad(ValueError, r"x must be finite .* got nan", do=lambda m: m.update(ONES * torch.nan, ONES)),
            Bad(ValueError, r"before forward, got 0 samples", do=lambda m: RecursiveRidge(3)(ONES)),
            *((Bad(ValueError, match, do=lambda m, o=other: m.merge(o)) for match, other in merges)),
        ),
        skips={"gradcheck": "learns in closed form: every method runs under no_grad"},
    )
    for form, merges in (
        (
            "information",
            (
                (r"other.penalty must be 0\.7, got 9\.0", RecursiveRidge(3, penalty=9.0)),
                (r"other.in_features must be 3, got 4", RecursiveRidge(4, penalty=0.7)),
            ),
        ),
        ("covariance", ((r"form must be 'information' to merge, got 'covariance'", RecursiveRidge(3, penalty=0.7)),)),
    )
]

PARTS = [*RIDGE, *RECURSIVE]
