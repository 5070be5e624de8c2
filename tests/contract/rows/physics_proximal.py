"""Rows of `throughline.physics.proximal`."""

from typing import Any

import torch
from tests.contract.part import Bad, Part, normal, seeded
from torch import Tensor, nn

from throughline.physics.proximal import (
    InputConvexCNN,
    InputConvexMLP,
    LearnedProximalNetwork,
    ProximalMatchingLoss,
    pnp_admm,
    pnp_pgd,
    proximal_matching_loss,
)

NOT_PARTS = {
    "throughline.physics.proximal.PnPResult": "a NamedTuple: what pnp_pgd and pnp_admm return",
    "throughline.physics.proximal.keep_convex": "hooks an optimizer; tests/physics holds every step against clamping",
    "throughline.physics.proximal.proximal_matching_schedule": "takes and returns numbers; tests/physics has it",
}
GLOBAL = {"untouched": "a module's parameters start from torch's global generator, as those of nn.Linear do"}
INSIDE = {"fullgraph": "differentiates twice, which compiled graphs cannot: it runs beside them"}
LOOKS = {"transforms": "looks at residuals to know when to stop; says so, and that batches go in as they are"}
D = torch.float64
ONES, COUNTS = torch.ones(2, 3, dtype=D), torch.ones(2, 3).long()
MATRIX = torch.tensor([[0.6, 0.2, 0.0], [0.1, 0.5, 0.3], [0.0, -0.2, 0.7], [0.3, 0.0, 0.1]], dtype=D)


def potential() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return InputConvexMLP(3, 4, depth=2, beta=2.0, strong_convexity=0.3).double()


def weights(net: Any) -> None:
    draw = seeded(5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(normal(draw, *parameter.shape) / 3)
    net.project_()


def slow_loss(input: Tensor, target: Tensor) -> Tensor:
    total = sum(1 - torch.exp(-((a - b) ** 2).sum() / 1.5**2) for a, b in zip(input, target, strict=True))
    return torch.as_tensor(total / len(input))


def solve(observation: Tensor, method: Any = pnp_pgd, prox: Any = torch.tanh, **options: Any) -> Tensor:
    if not isinstance(observation, Tensor):
        return method(observation, None, None, prox, **options)
    matrix = MATRIX.to(observation.dtype)
    rows = observation if observation.ndim > 1 else observation[None]
    found = method(rows, lambda x: x @ matrix.T, lambda y: y @ matrix, prox, **{"max_iter": 4, "tol": 1e-12, **options})
    solution: Tensor = found.solution
    return solution if observation.ndim > 1 else solution[0]


POTENTIAL = (
    Bad(ValueError, r"beta must be positive and finite, got 0\.0", beta=0.0),
    Bad(ValueError, r"strong_convexity must be at least 0 and finite, got -1\.0", strong_convexity=-1.0),
    Bad(ValueError, r"hidden must be at least 1, got 0", hidden=0),
)
PARTS = [
    Part(
        InputConvexMLP,
        lambda g: (normal(g, 3),),
        {"in_features": 3, "hidden": 4, "depth": 2, "beta": 2.0, "strong_convexity": 0.3},
        batched=(0,),
        edges={"single": lambda: (ONES[:1],)},
        bad=(
            *POTENTIAL,
            Bad(ValueError, r"depth must be at least 1, got 0", depth=0),
            Bad(ValueError, r"x must be \(\.\.\., 3\), got shape \(2, 2\)", ONES[:, :2]),
            Bad(TypeError, r"x must be floating point, got torch\.int64", COUNTS),
        ),
        prepare=weights,
        mixed=True,
        skips=GLOBAL,
    ),
    Part(
        InputConvexCNN,
        lambda g: (normal(g, 2, 1, 4, 4),),
        {"in_channels": 1, "image_size": 4, "hidden": 2, "strides": (2,), "head": 2, "beta": 2.0},
        edges={"single": lambda: (torch.ones(1, 1, 4, 4, dtype=D),)},
        bad=(
            *POTENTIAL,
            Bad(ValueError, r"head must be at least 1, got 0", head=0),
            Bad(ValueError, r"image_size must be a multiple of the product of strides, 3, got 4", strides=(3,)),
            Bad(ValueError, r"x must be \(B, 1, 4, 4\), got shape \(2, 3\)", ONES),
            Bad(TypeError, r"x must be floating point, got torch\.int64", COUNTS),
        ),
        prepare=weights,
        mixed=True,
        skips={**GLOBAL, "batch": "one batch dimension, as convolutions have"},
    ),
    Part(
        LearnedProximalNetwork,
        lambda g: (normal(g, 3),),
        {"potential": potential()},
        variant="forward",
        mixed=True,
        batched=(0,),
        edges={"single": lambda: (ONES[:1],)},
        bad=(
            Bad(TypeError, r"potential must be an nn\.Module, got int", potential=3),
            Bad(ValueError, r"one scalar for each sample", ONES, potential=nn.Identity()),
            Bad(TypeError, r"x must be floating point, got torch\.int64", COUNTS),
        ),
        skips=INSIDE,
    ),
    *(
        Part(
            LearnedProximalNetwork,
            lambda g: (normal(g, 3) / 2,),
            {"potential": potential()},
            variant=method,
            call=lambda f, x, method=method, **options: getattr(f, method)(x, **options),
            batched=(0,),
            edges={"single": lambda: (ONES[:1],)},
            bad=(Bad(ValueError, r"one scalar for each sample", ONES, potential=nn.Identity()),),
            skips=INSIDE if method == "prior_at_output" else INSIDE | LOOKS,
        )
        for method in ("prior", "prior_at_output")
    ),
    *(
        Part(
            subject,
            lambda g: (normal(g, 5, 3), normal(g, 5, 3)),
            {"gamma": 1.5},
            edges={"single": lambda: (ONES[:1], ONES[:1] * 2)},
            reference=slow_loss,
            bad=(
                Bad(ValueError, r"gamma must be positive and finite, got 0\.0", gamma=0.0),
                Bad(ValueError, r"reduction must be one of mean, sum, none, got 'all'", reduction="all"),
                Bad(ValueError, r"one shape, got \(2, 3\) and \(2, 2\)", ONES, ONES[:, :2]),
                Bad(TypeError, r"input must be floating point, got torch\.int64", COUNTS, ONES),
            ),
            skips={"batch": "the first dimension is the batch, the norm goes over all others"},
        )
        for subject in (proximal_matching_loss, ProximalMatchingLoss)
    ),
    *(
        Part(
            method,
            lambda g: (normal(g, 4),),
            options,
            call=lambda observation, method=method, **options: solve(observation, method, **options),
            constant=(0,),
            edges={"single": lambda: (torch.ones(1, 4, dtype=D),)},
            empty=lambda: (torch.zeros(0, 4, dtype=D),),
            bad=(
                *(
                    Bad(ValueError, rf"{name} must be positive and finite, got 0\.0", **{name: 0.0})
                    for name in (*options, "tol")
                ),
                Bad(ValueError, r"max_iter must be at least 1, got 0", max_iter=0),
                Bad(ValueError, r"observation must be finite", torch.full((1, 4), torch.nan)),
                Bad(TypeError, r"observation must be floating point, got torch\.int64", torch.ones(1, 4).long()),
            ),
            skips={
                "gradcheck": "an iteration to a fixed point, without a graph",
                "batch": "one batch dimension: it stops when no sample moves any more",
                "fullgraph": "looks at how far the samples have moved",
                "transforms": "looks at how far the samples have moved; says so, and that batches go in as they are",
            },
        )
        for method, options in ((pnp_pgd, {"step_size": 0.9}), (pnp_admm, {"rho": 0.5}))
    ),
]
