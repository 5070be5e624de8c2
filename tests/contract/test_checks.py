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

from throughline.core.checks import check_floating


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
        check_floating("x", x)
        return torch.tanh(x + self.bias)


COMMON = torch.zeros(1, dtype=torch.float64)


class Shares(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.common = COMMON

    def __deepcopy__(self, memo: dict[int, Any]) -> "Shares":
        twin = Shares()
        twin.common = self.common
        return twin


class Forgets(Sound):
    """Its copy starts anew."""

    def __init__(self, bias: float = 0.5) -> None:
        super().__init__(bias)
        self.calls = torch.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Forgets":
        return Forgets()


class Unreached(Sound):
    """A parameter that no gradient reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Parameter(torch.tensor(1.0))


class Counts(nn.Module):
    """A buffer that each process moves by its own data."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += x.detach().sum()
        return x * self.scale


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


class OldStyle(torch.autograd.Function):
    """Without setup_context: torch.func cannot transform it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 2


def old_style(x: Tensor) -> Tensor:
    return OldStyle.apply(x)


def follows_autocast(x: Tensor) -> Tensor:
    return x @ torch.eye(4, dtype=x.dtype)


def rounds_under_autocast(x: Tensor) -> Tensor:
    return (x @ torch.eye(4, dtype=x.dtype)).to(x.dtype)


def infinite_under_autocast(x: Tensor) -> Tensor:
    return x + (x - x).abs().sqrt() if torch.is_autocast_enabled("cpu") else x + 0


def hides_nan(x: Tensor) -> Tensor:
    return x.nan_to_num()


def picks_the_place_of_nan(x: Tensor) -> Tensor:
    return x.argmax(-1)


def blames_another(x: Tensor, *, scale: float = 1.0) -> Tensor:
    if x.isnan().any():
        raise ValueError("scale must be larger")
    return x * scale


def ignores_its_input(x: Tensor) -> Tensor:
    return torch.ones(4, dtype=x.dtype)


def mean_of_none(x: Tensor) -> Tensor:
    return x.mean()


def keeps_a_row(x: Tensor) -> Tensor:
    return x if x.numel() else torch.zeros(1, 4, dtype=x.dtype)


def fails_on_none(x: Tensor) -> Tensor:
    return x - x.max()


def takes_anything(x: Tensor) -> Tensor:
    return torch.as_tensor(x) * 2


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
    "autocast": [part(follows_autocast), part(rounds_under_autocast), part(infinite_under_autocast)],
    "transforms": [part(old_style), part(breaks_the_graph), part(draws_globally)],
    "nan": [part(hides_nan), part(picks_the_place_of_nan), part(blames_another), part(ignores_its_input)],
    "empty": [part(mean_of_none, batched=()), part(keeps_a_row), part(fails_on_none)],
    "foreign": [part(widens), part(takes_anything), part(accepts_all, foreign=(0,))],
    "deepcopy": [part(Shares), part(Forgets)],
    "ddp": [part(Unreached), part(Counts)],
    "compile": [part(differs_when_compiled, backend="eager")],
    "fullgraph": [part(breaks_the_graph, backend="eager"), part(differs_when_compiled, backend="eager")],
    "errors": [
        part(accepts_all),
        part(accepts_all, bad=(Bad(ValueError, "scale", scale=-1.0),)),
        part(Sound, bad=(Bad(TypeError, "bias", bias=-1.0),)),
        part(Sound, bad=(Bad(ValueError, "scale", bias=-1.0),)),
    ],
}
PARTS = [broken for all_ in BROKEN.values() for broken in all_]  # where the processes of ddp find them
ROWS = [
    pytest.param(name, broken, id=f"{name}-{broken}-{i}")
    for name, all_ in BROKEN.items()
    for i, broken in enumerate(all_)
]


@pytest.mark.parametrize(("name", "broken"), ROWS)
def test_a_broken_part_is_found(name: str, broken: Part) -> None:
    with pytest.raises(
        (AssertionError, RuntimeError, TypeError, ValueError)
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
