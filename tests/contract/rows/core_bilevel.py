"""Rows of `throughline.core.bilevel`."""

from collections.abc import Callable
from typing import Any

import torch
from tests.contract.part import Bad, Part, normal
from torch import Generator, Tensor

from throughline.core.bilevel import adjoint, hypergradient, inner_hvp, mixed_vjp, unroll

MIX = torch.tensor([[1.0, 0.5], [-0.3, 0.8], [0.2, 0.4]], dtype=torch.float64)
X, Y = torch.tensor([0.3, -0.2], dtype=torch.float64), torch.tensor([0.5, -1.0, 0.1], dtype=torch.float64)


def inner(x: Tensor, y: Tensor) -> Tensor:
    """Strongly convex in y, with bounded curvature and a mixed part; by elements, so that autocast leaves it alone."""
    return (y.square().sum() + (1 + (y - (MIX.to(x.dtype) * x).sum(-1)).square()).sqrt().sum()) / 2


def outer(x: Tensor, y: Tensor) -> Tensor:
    return (1 + (y - 1).square()).sqrt().sum() + (1 + x.square()).sqrt().sum()


def flat(x: Tensor, y: Tensor) -> Tensor:
    return x.sum()


def sample(g: Generator) -> tuple[Tensor, ...]:
    return normal(g, 2), normal(g, 3)


def stacked(call: Callable[..., Any]) -> Callable[..., Any]:
    """The call, under as many ``vmap`` as there are leading dimensions."""

    def many(x: Tensor, *args: Tensor, **options: Any) -> Any:
        over = lambda *a: call(*a, **options)  # noqa: E731 - wrapped again below
        for _ in range(x.dim() - 1 if isinstance(x, Tensor) else 0):
            over = torch.func.vmap(over)
        return over(x, *args)

    return many


@stacked
def estimate(x: Tensor, y: Tensor, **options: Any) -> Tensor:
    return hypergradient(outer, inner, x, y, **options)


@stacked
def solve(x: Tensor, y: Tensor, **options: Any) -> Tensor:
    return adjoint(outer, inner, x, y, **options)


@stacked
def curvature(x: Tensor, y: Tensor, v: Tensor) -> Tensor:
    return inner_hvp(inner, x, y, v)


@stacked
def mixed(x: Tensor, y: Tensor, v: Tensor) -> Tensor:
    return mixed_vjp(inner, x, y, v)


@stacked
def descend(x: Tensor, y: Tensor, **options: Any) -> Tensor:
    return unroll(inner, x, y, **options)


def positive(*names: str) -> tuple[Bad, ...]:
    return tuple(
        Bad(ValueError, f"{name} must be positive and finite, got {value}", **{name: value})
        for name in names
        for value in (0.0, -1.0, float("nan"))
    )


def unused(method: str, **options: Any) -> tuple[Bad, ...]:
    return tuple(
        Bad(ValueError, f"{name} is not used by method '{method}'; leave it out", **{name: value})
        for name, value in options.items()
    )


STEPS = (Bad(ValueError, "steps must be at least 1, got 0", steps=0),)
MISSING = "lr must be given for method '{}', got None"
TREES = (
    Bad(TypeError, r"outer_params must be floating point, got torch\.int64", X.long(), Y),
    Bad(TypeError, r"inner_params must be floating point, got torch\.int64", X, Y.long()),
)
LOSSES = (
    Bad(
        ValueError,
        r"outer_loss must return a scalar, got shape \(3,\)",
        do=lambda f: hypergradient(lambda x, y: y, inner, X, Y),
    ),
    Bad(
        ValueError,
        r"inner_loss must return a scalar, got shape \(3,\)",
        do=lambda f: hypergradient(outer, lambda x, y: y, X, Y),
    ),
    Bad(
        TypeError,
        "inner_loss must return a tensor, got float",
        do=lambda f: hypergradient(outer, lambda x, y: 1.0, X, Y),
    ),
    Bad(ValueError, "outer_loss must depend on the inner parameters", do=lambda f: hypergradient(flat, inner, X, Y)),
    Bad(ValueError, "inner_loss must depend on the inner parameters", do=lambda f: hypergradient(outer, flat, X, Y)),
    Bad(ValueError, "outer_params must hold at least one tensor", do=lambda f: hypergradient(outer, inner, {}, Y)),
    Bad(ValueError, "inner_params must hold at least one tensor", do=lambda f: hypergradient(outer, inner, X, [])),
    Bad(ValueError, "method must be one of .*, got 'newton'", method="newton"),
)
CG = (
    *STEPS,
    *positive("tol"),
    *(Bad(ValueError, f"damping must be non-negative and finite, got {d}", damping=d) for d in (-0.1, float("inf"))),
    Bad(ValueError, r"init must have the shapes of inner_params, got \(2,\) for \(3,\)", init=X),
    Bad(ValueError, "init must have the structure of inner_params", init={"a": Y}),
)
EMPTY = {"empty": "many problems go through torch.func.vmap, not all of whose rules take none"}
SKIPS = EMPTY | {
    "gradcheck": "an estimate: what it returns is detached",
    "fullgraph": "the compiler cannot differentiate twice: runs between its graphs",
}
NESTED = dict.fromkeys(
    ("batch", "transforms"),
    "PyTorch's vmap of a transform fails on a function with a backward of its own; one vmap is tested elsewhere",
)
SINGLE = {"single": lambda: (X * 0.5, Y * 2)}
PARTS = [
    Part(
        hypergradient,
        sample,
        {"method": "cg", "steps": 3, "tol": 1e-9},
        call=estimate,
        arguments=("outer_params", "inner_params"),
        batched=(0, 1),
        tolerance=(1e-4, 6e-2),
        bad=(*CG, *TREES, *LOSSES, *unused("cg", lr=0.1, epsilon=0.5, checkpoint=True)),
        edges=SINGLE,
        skips=SKIPS,
    ),
    Part(
        hypergradient,
        sample,
        {"method": "neumann", "steps": 5, "lr": 0.5},
        call=estimate,
        arguments=("outer_params", "inner_params"),
        batched=(0, 1),
        tolerance=(1e-4, 6e-2),
        bad=(
            *STEPS,
            *positive("lr"),
            *TREES,
            Bad(ValueError, MISSING.format("neumann"), lr=None),
            *unused("neumann", tol=0.1, damping=0.1, init=Y, epsilon=0.5, checkpoint=True),
        ),
        edges=SINGLE,
        skips=SKIPS,
    ),
    Part(
        hypergradient,
        sample,
        {"method": "identity"},
        call=estimate,
        arguments=("outer_params", "inner_params"),
        batched=(0, 1),
        tolerance=(1e-4, 6e-2),
        bad=(*positive("lr"), *TREES, *unused("identity", steps=2, tol=0.1, damping=0.1, init=Y, epsilon=0.5)),
        edges=SINGLE,
        skips=SKIPS,
    ),
    *(
        Part(
            hypergradient,
            sample,
            {"method": "unrolled", "steps": 3, "lr": 0.5, "checkpoint": checkpoint},
            call=estimate,
            arguments=("outer_params", "inner_params"),
            batched=(0, 1),
            tolerance=(1e-4, 6e-2),
            bad=(
                *STEPS,
                *positive("lr"),
                *TREES,
                Bad(ValueError, MISSING.format("unrolled"), lr=None),
                *unused("unrolled", tol=0.1, damping=0.1, init=Y, epsilon=0.5),
            ),
            edges=SINGLE,
            skips=SKIPS | (NESTED if checkpoint else {}),
        )
        for checkpoint in (False, True)
    ),
    Part(
        hypergradient,
        sample,
        {"method": "finite_difference", "lr": 0.5},
        call=estimate,
        arguments=("outer_params", "inner_params"),
        batched=(0, 1),
        tolerance=(1e-2, 6e-2),
        bad=(
            *positive("epsilon"),
            *(Bad(ValueError, f"lr must be positive and finite, got {lr}", lr=lr) for lr in (-1.0, float("inf"))),
            Bad(ValueError, MISSING.format("finite_difference"), lr=None),
            *TREES,
            *unused("finite_difference", steps=2, tol=0.1, damping=0.1, init=Y, checkpoint=True),
        ),
        edges=SINGLE,
        skips=SKIPS,
    ),
    Part(
        adjoint,
        sample,
        {"method": "cg", "steps": 3, "tol": 1e-9},
        call=solve,
        arguments=("outer_params", "inner_params"),
        batched=(0, 1),
        tolerance=(1e-4, 6e-2),
        bad=(
            *CG,
            *TREES,
            Bad(ValueError, "method must be one of neumann, cg, identity, got 'unrolled'", method="unrolled"),
        ),
        edges=SINGLE,
        skips=SKIPS,
    ),
    *(
        Part(
            subject,
            lambda g: (*sample(g), normal(g, 3)),
            call=call,
            arguments=("outer_params", "inner_params", "vector"),
            batched=(0, 1, 2),
            bad=(
                Bad(TypeError, r"outer_params must be floating point", X.long(), Y, Y),
                Bad(ValueError, r"vector must have the shapes of inner_params, got \(2,\) for \(3,\)", X, Y, X),
                Bad(ValueError, "inner_loss must depend", do=lambda f, subject=subject: subject(flat, X, Y, Y)),
            ),
            edges={"single": lambda: (X * 0.5, Y * 2, Y)},
            skips=SKIPS,
        )
        for subject, call in ((inner_hvp, curvature), (mixed_vjp, mixed))
    ),
    *(
        Part(
            unroll,
            sample,
            {"steps": 3, "lr": 0.5, "checkpoint": checkpoint},
            call=descend,
            arguments=("outer_params", "inner_params"),
            batched=(0, 1),
            bad=(*STEPS, *positive("lr"), *TREES),
            edges=SINGLE,
            skips=EMPTY | {"fullgraph": SKIPS["fullgraph"]},
        )
        for checkpoint in (False, True)
    ),
]
