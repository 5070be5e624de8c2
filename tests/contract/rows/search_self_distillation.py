"""Rows of `throughline.search.self_distillation`."""

from typing import Any

import torch
from tests.contract.part import COMPILER, Bad, Part, normal
from torch import Generator, Tensor, nn

from throughline.search.self_distillation import (
    VotingTeachers,
    distillation_loss,
    dominant_eigenvalue,
    sharpness,
    vote,
)

NOT_PARTS = {
    "throughline.search.self_distillation.SelfDistillationSearcher": (
        "takes steps on a supernet; self_distillation/test_searcher.py is about them"
    ),
}


def probabilities(generator: Generator, rows: int) -> Tensor:
    """Rows of four that every precision holds exactly."""
    orders = torch.rand(rows, 4, generator=generator).argsort(1)
    return torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)[orders]


def ones(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.float64)


def model(dtype: torch.dtype, seed: int = 5) -> nn.Module:
    """From 3 to 4 features, with weights that draw no random numbers."""
    made = nn.utils.skip_init(nn.Linear, 3, 4, dtype=torch.float64, device="cpu")
    with torch.no_grad():
        made.weight.copy_(torch.arange(12, device="cpu").double().mul(0.3 * seed).sin().view(4, 3))
        made.bias.zero_()
    return made.to(dtype)


def voted(x: Tensor, *, temperature: float = 1.0, **options: Any) -> Tensor:
    """The vote of the last two of three states."""
    student = model(x.dtype if isinstance(x, Tensor) else torch.float64, 5)
    teachers = VotingTeachers(student, **{"teachers": 2, **options})
    for seed in (5, 6, 7):
        student.load_state_dict(model(student.weight.dtype, seed).state_dict())
        teachers.update()
    return teachers.predict(x, temperature=temperature)


def held(x: Tensor) -> VotingTeachers:
    teachers = VotingTeachers(model(x.dtype), teachers=2)
    teachers.update()
    teachers.update()
    return teachers


def smooth(net: nn.Module, x: Tensor) -> Tensor:
    return (1 + net(x).square()).sqrt().mean()


def rise(x: Tensor, **options: Any) -> Tensor:
    return sharpness(model(x.dtype), smooth, x, **options)


def curvature(x: Tensor, *, generator: Generator, **options: Any) -> Tensor:
    net, fresh = model(x.dtype), Generator()
    fresh.set_state(generator.get_state())  # every call starts alike
    given = {"params": [net.weight], "iterations": 5, **options}
    return dominant_eigenvalue(net, smooth, x, generator=fresh, **given)


P, Z = torch.full((2, 3), 1 / 3), torch.zeros(2, 3)
MEASURED = {
    "gradcheck": "a measure without gradient",
    "batch": "one number over the whole batch",
    "fullgraph": "compilers do not differentiate twice: it is left out",
    "transforms": "it differentiates by autograd, whose graph torch.func does not see",
    "foreign": "the batch is whatever the loss takes",
}

PARTS = [
    Part(
        vote,
        lambda g: (normal(g, 3, 5, 4).softmax(-1),),
        edges={"single": lambda: (ones(1, 1),)},
        bad=(
            Bad(ValueError, r"probabilities must be \(teachers, \.\.\., classes\) .* got shape \(3,\)", P[0]),
            Bad(ValueError, r"of at least one teacher, got shape \(0, 3\)", P[:0]),
            Bad(TypeError, r"probabilities must be floating point, got torch.int64", P.long()),
        ),
        skips={"batch": "the first dimension is that of the teachers, any others may follow"},
    ),
    *(
        Part(
            distillation_loss,
            lambda g: (normal(g, 5, 4), probabilities(g, 5)),
            {"temperature": temperature},
            constant=(1,),
            stretched=(0,),
            edges={
                "single": lambda: (ones(1, 1), ones(1, 1)),
                "one sample": lambda: (ones(2), ones(2) / 2),
                "sure and wrong": lambda: (ones(1, 2) * torch.tensor([1e8, -1e8]), 1 - ones(1, 2).cumsum(1) + 1),
            },
            backend=COMPILER if temperature == 4.0 else "aot_eager",
            bad=(
                Bad(ValueError, r"must have one shape, got \(2, 3\) and \(3,\)", Z, P[0]),
                Bad(ValueError, r"logits must be \(\.\.\., classes\) and not empty, got shape \(0, 3\)", Z[:0], P[:0]),
                Bad(ValueError, r"logits must be \(\.\.\., classes\) .* got shape \(\)", Z[0, 0], P[0, 0]),
                Bad(ValueError, r"teacher must hold probabilities.*softmax\(logits / temperature\)", Z, Z),
                Bad(ValueError, r"teacher must hold probabilities", Z, torch.tensor([[2.0, -0.5, -0.5]] * 2)),
                Bad(TypeError, r"logits must be floating point, got torch.int64", Z.long(), P),
                Bad(TypeError, r"teacher must be floating point, got torch.int64", Z, P.long()),
                Bad(ValueError, r"temperature must be positive and finite, got 0", temperature=0),
                Bad(ValueError, r"temperature must be positive and finite, got inf", temperature=float("inf")),
            ),
            skips={"batch": "one number over all samples"},
        )
        for temperature in (1.0, 4.0)
    ),
    Part(
        VotingTeachers,
        lambda g: (normal(g, 5, 3),),
        variant="predict",
        call=voted,
        holder=held,
        constant=(0,),
        batched=(0,),
        shortest=torch.float32,
        tolerance=(1e-4, 5e-2),
        mixed=True,
        edges={"single": lambda: (ones(1, 3),)},
        bad=(
            Bad(ValueError, r"teachers must be at least 1, got 0", teachers=0),
            Bad(ValueError, r"interval must be at least 1, got -1", interval=-1),
            Bad(TypeError, r"teachers must be an integer, got 2\.5", teachers=2.5),
            Bad(RuntimeError, r"there is no teacher yet: update\(\) records one every 9 steps, and 3", interval=9),
            Bad(ValueError, r"temperature must be positive and finite, got -1", temperature=-1),
        ),
        skips={
            "gradcheck": "teachers give no gradient",
            **dict.fromkeys(("fullgraph", "transforms"), "snapshots are taken inside the call"),
            "foreign": "x is the model's own argument",
        },
    ),
    Part(
        sharpness,
        lambda g: (normal(g, 5, 3),),
        call=rise,
        edges={"single": lambda: (ones(1, 3),)},
        constant=(0,),
        shortest=torch.float32,
        mixed=True,
        bad=(Bad(ValueError, r"rho must be positive and finite, got 0", rho=0),),
        skips={**MEASURED, "empty": "the batch is an argument of the loss, which is the caller's own"},
    ),
    Part(
        dominant_eigenvalue,
        lambda g: (normal(g, 5, 3),),
        call=curvature,
        edges={"single": lambda: (ones(1, 3),)},
        constant=(0,),
        shortest=torch.float32,
        mixed=True,
        bad=(
            Bad(ValueError, r"iterations must be at least 1, got 0", iterations=0),
            Bad(ValueError, r"params must be at least one parameter that requires a gradient, got none", params=[]),
        ),
        skips=MEASURED,
    ),
]
