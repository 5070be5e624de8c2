"""Rows of `throughline.discrete.ordering`."""

from typing import get_args

import torch
from tests.contract.part import Bad, Part, normal

from throughline.core.sorting import Network
from throughline.discrete.ordering import GroupOrderingLoss, group_ordering_loss

VIEWS = torch.ones(2, 4, 3, dtype=torch.float64)
RELAXATION = (
    Bad(ValueError, r"steepness must be positive and finite, got -1\.0", steepness=-1.0),
    Bad(ValueError, r"distribution must be one of cauchy, .* got 'normal'", distribution="normal"),
    Bad(ValueError, r"network must be one of odd_even, bitonic, got 'bubble'", network="bubble"),
)
PARTS = [
    *(
        Part(
            group_ordering_loss,
            lambda g: (normal(g, 1), normal(g, 2)),
            {"reduction": "none", "network": network},
            variant=network,
            batched=(0, 1),
            backend="eager" if network == "odd_even" else "aot_eager",
            edges={
                "masked": lambda: (VIEWS[0, 0], torch.tensor([0.1, -torch.inf], dtype=torch.float64)),
                "all masked": lambda: (VIEWS[0, 0], torch.full((3,), -torch.inf, dtype=torch.float64)),
            },
            bad=(
                *RELAXATION,
                Bad(ValueError, r'reduction must be "mean" or "none", got \'sum\'', reduction="sum"),
                Bad(TypeError, r"positive must be floating point, got torch.int64", torch.arange(2), torch.ones(3)),
                Bad(ValueError, r"negative must have shape .* got \(0,\)", torch.ones(2), torch.ones(0)),
                Bad(ValueError, r"same leading shape, got \(4, 2\) and \(5, 3\)", torch.ones(4, 2), torch.ones(5, 3)),
            ),
        )
        for network in get_args(Network)
    ),
    *(
        Part(
            GroupOrderingLoss,
            lambda g: (normal(g, 3, 5, 4),),
            {"negatives": 3, "positive_views": 2, "stop_gradient": stop},
            variant="stop_gradient" if stop else "full gradient",
            backend="eager",  # the sort inside of it is traced by aot_eager in a row of its own
            edges={"single": lambda: (torch.ones(2, 4, 1, dtype=torch.float64),)},
            bad=(
                *RELAXATION,
                Bad(ValueError, r"negatives must be at least 1, got 0", negatives=0),
                Bad(ValueError, r"need a batch of at least 5, got 4", VIEWS, negatives=4),
                Bad(ValueError, r"positive_views must be at least 2 .* got 1", positive_views=1),
                Bad(ValueError, r"positive_views must be at most .* \(2\), got 3", VIEWS, positive_views=3),
                Bad(ValueError, r"gather_distributed=True needs .* process group", gather_distributed=True),
                Bad(ValueError, r"views must be at least two, got 1", VIEWS[:1]),
                Bad(ValueError, r"one shape \(B, D\), got \(4, 3\), \(5, 3\)", [VIEWS[0], torch.ones(5, 3)]),
                Bad(TypeError, r"views must be floating point, got torch.int64", VIEWS.long()),
            ),
            skips={
                "batch": "one number over all views and samples",
                **({"gradcheck": "keys are detached: by definition not the derivative of the value"} if stop else {}),
            },
        )
        for stop in (True, False)
    ),
]
