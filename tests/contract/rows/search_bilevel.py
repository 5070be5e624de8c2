"""Rows of `throughline.search.bilevel`."""

import itertools
from typing import Any

import torch
from tests.contract.part import Bad, Part, normal
from torch import Tensor

from throughline.search.bilevel import BOREP

NOT_PARTS = {"throughline.search.bilevel.BilevelStep": "a NamedTuple of four numbers: what a step returns"}


def follow(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    return (scale * (y - x.tanh())).square().sum() / 2 + y.square().sum() / 10


def aim(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    return (y - 1).square().sum() / 2 + (x * x).sum().sqrt()


def steps(
    upper_params: Tensor, lower_params: Tensor, upper_loss: Any = aim, lower_loss: Any = follow, **options: Any
) -> tuple[Any, ...]:
    """Four steps from copies of x and y: what they have become, and what the last step saw."""
    x, y = (p.detach().clone() if isinstance(p, Tensor) else p for p in (upper_params, lower_params))
    optimizer = BOREP(upper_loss, lower_loss, x, y, **options)
    batches = itertools.repeat(torch.ones_like(y.detach()))
    optimizer.refine(batches, steps=2)
    infos = [optimizer.step(batches, batches) for _ in range(4)]
    return (
        optimizer.upper,
        optimizer.lower,
        optimizer.adjoint,
        optimizer.momentum_buffer,
        *(i.to(x.dtype) for i in infos[-1]),
    )


PARTS = [
    Part(
        BOREP,
        lambda g: (normal(g, 3), normal(g, 3)),
        {"lr": 0.05, "lower_lr": 0.1, "adjoint_lr": 0.1, **options},
        variant=variant,
        call=steps,
        stretched=(1,),
        edges={"huge start": lambda: (torch.full((3,), 1e8), torch.full((3,), -1e8))},
        backend="eager",
        bad=(
            *(
                Bad(ValueError, rf"{name} must be positive and finite, got 0\.0", **{name: 0.0})
                for name in ("lr", "lower_lr", "adjoint_lr")
            ),
            *(Bad(ValueError, rf"{name} must be at least 1, got 0", **{name: 0}) for name in ("period", "lower_steps")),
            Bad(ValueError, r"momentum must be in \[0, 1\), got 1\.0", momentum=1.0),
            Bad(
                TypeError,
                r"upper_params must be floating point, got torch.int64",
                torch.ones(3).long(),
                torch.ones(3),
            ),
            Bad(TypeError, r"lower_params must be floating point", torch.ones(3), torch.ones(3).bool()),
            Bad(ValueError, r"lower_loss must return a scalar, got shape \(3,\)", lower_loss=lambda x, y, batch: x * y),
            Bad(ValueError, r"upper_loss must depend on the inner parameters", upper_loss=lambda x, y, batch: x.sum()),
            Bad(
                FloatingPointError, r"hypergradient is not finite at step 0", torch.full((3,), torch.inf), torch.ones(3)
            ),
            Bad(FloatingPointError, r"not finite after refinement", torch.ones(3), torch.full((3,), torch.nan)),
        ),
        skips={
            "gradcheck": "an optimiser: it moves parameters and has no gradient of its own",
            "batch": "one norm over all of x",
            "transforms": "an optimiser: it moves its tensors in place and looks at their norms",
            "fullgraph": "the losses are differentiated inside",
        },
    )
    for variant, options in (
        ("bo-rep", {"period": 2, "lower_steps": 2}),
        ("ma-soba", {"period": 1, "lower_steps": 1, "normalize": False}),
    )
]
