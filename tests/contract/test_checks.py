"""Each check fails on a part that breaks the contract in just that way: a check that cannot fail says nothing."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.contract import checks
from tests.contract.part import Bad, Part, normal
from tests.contract.test_parts import left_out
from torch import Tensor, nn


class WrongSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 3


class Forgetful(nn.Module):
    def __init__(self, *, generator: torch.Generator) -> None:
        super().__init__()
        self.scale = torch.rand((), generator=generator, dtype=torch.float64)  # state that is no buffer

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Sound(nn.Module):
    def __init__(self, bias: float = 0.5) -> None:
        super().__init__()
        if bias < 0:
            raise ValueError(f"bias must not be negative, got {bias}")
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x + self.bias)


def wrong_slope(x: Tensor) -> Tensor:
    return WrongSlope.apply(x)


def nan_at_zero(x: Tensor) -> Tensor:
    return x / x.abs()


def infinite_slope(x: Tensor) -> Tensor:
    return x.abs().sqrt()


def mixes_the_batch(x: Tensor) -> Tensor:
    return x - x.mean()


def widens(x: Tensor) -> Tensor:
    return x + torch.ones(x.shape, dtype=torch.float64)


def follows_the_default(x: Tensor) -> Tensor:
    return x * torch.ones(x.shape)


def lossy(x: Tensor) -> Tensor:
    return x.bfloat16().float() if x.dtype == torch.float32 else x


def ignores_its_generator(x: Tensor, *, generator: torch.Generator) -> Tensor:
    return x


def draws_globally(x: Tensor) -> Tensor:
    return x + torch.rand(())


def reseeds_python(x: Tensor) -> Tensor:
    random.seed(0)
    return x


def writes_to_its_input(x: Tensor) -> Tensor:
    return x.mul_(1.0)


def breaks_the_graph(x: Tensor) -> Tensor:
    return x * 2 if x.sum().item() > 0 else x * 3


def differs_when_compiled(x: Tensor) -> Tensor:
    return x * 2 if torch.compiler.is_compiling() else x


def accepts_all(x: Tensor, *, scale: float = 1.0) -> Tensor:
    return x * scale


def part(subject: Callable[..., Any], **changes: Any) -> Part:
    return Part(subject, lambda g: (normal(g, 4),), **{"batched": (0,), **changes})


BROKEN = {
    "reference": [part(torch.sin, reference=torch.cos)],
    "gradcheck": [part(wrong_slope)],
    "extremes": [part(nan_at_zero), part(infinite_slope), part(torch.exp), part(torch.log)],
    "batch": [part(mixes_the_batch), part(torch.sin, batched=())],
    "dtype": [part(widens), part(follows_the_default), part(lossy)],
    "device": [part(follows_the_default)],
    "state": [part(Forgetful)],
    "seed": [part(draws_globally), part(ignores_its_generator)],
    "untouched": [part(draws_globally), part(reseeds_python), part(writes_to_its_input)],
    "compile": [part(differs_when_compiled, backend="eager")],
    "fullgraph": [part(breaks_the_graph, backend="eager"), part(differs_when_compiled, backend="eager")],
    "errors": [
        part(accepts_all),
        part(accepts_all, bad=(Bad(ValueError, "scale", scale=-1.0),)),
        part(Sound, bad=(Bad(TypeError, "bias", bias=-1.0),)),
        part(Sound, bad=(Bad(ValueError, "scale", bias=-1.0),)),
    ],
}
ROWS = [
    pytest.param(name, broken, id=f"{name}-{broken}-{i}")
    for name, all_ in BROKEN.items()
    for i, broken in enumerate(all_)
]


@pytest.mark.parametrize(("name", "broken"), ROWS)
def test_a_broken_part_is_found(name: str, broken: Part) -> None:
    with pytest.raises(
        (AssertionError, RuntimeError, ValueError)
    ):  # gradcheck, load_state_dict and torch raise their own
        getattr(checks, f"check_{name}")(broken)


def test_every_check_is_shown_to_fail() -> None:
    assert set(BROKEN) == {name.removeprefix("check_") for name in vars(checks) if name.startswith("check_")}


def test_a_sound_part_passes() -> None:
    sound = part(Sound, bad=(Bad(ValueError, r"bias must not be negative, got -1\.0", bias=-1.0),), backend="eager")
    for check in checks.checks(sound).values():
        check(sound)


def test_a_stale_skip_fails() -> None:
    (mark,) = left_out(part(Sound, skips={"batch": "no reason any more"}), "batch")
    assert (mark.name, mark.kwargs) == ("xfail", {"reason": "no reason any more", "strict": True})
    assert left_out(part(Sound), "batch") == []
