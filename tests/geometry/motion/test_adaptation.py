"""Adaptation against Adam by hand, what it leaves alone, and a regressor on a clip."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from throughline.geometry.motion import adapt


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 2))


X = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))


def loss(y: Tensor) -> Tensor:
    return (y - 1).square().mean()


def test_it_is_adam_in_evaluation_mode() -> None:
    model = network().train()
    model(torch.randn(64, 3))  # statistics of its own
    tuned = adapt(model, (X,), loss, steps=7, lr=0.03)
    twin = copy.deepcopy(model).eval()
    first = {p: (torch.zeros_like(p), torch.zeros_like(p)) for p in twin.parameters()}
    for step in range(1, 8):
        for p, gradient in zip(first, torch.autograd.grad(loss(twin(X)), list(first)), strict=True):
            m, v = first[p]
            m.mul_(0.5).add_(0.5 * gradient)
            v.mul_(0.999).add_(0.001 * gradient**2)
            with torch.no_grad():
                p -= 0.03 * (m / (1 - 0.5**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
    for ours, theirs in zip(tuned.state_dict().values(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_model_is_never_touched() -> None:
    model = network().train()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    model[4].requires_grad_(False)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    tuned = adapt(model, (X,), loss, steps=3, lr=0.1)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(module.training for module in model.modules())
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert model[1].bias.grad is None
    assert not any(module.training for module in tuned.modules())
    assert [p.requires_grad for p in tuned.parameters()] == [p.requires_grad for p in model.parameters()]
    assert all(p.grad is None for p in tuned.parameters())
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(tuned.state_dict()[name], before[name])


def test_all_weights_learn_also_frozen_ones_or_those_that_are_chosen() -> None:
    model = network().requires_grad_(False)
    whole = adapt(model, (X,), loss, steps=2)
    assert all(not torch.equal(a, b) for a, b in zip(whole.parameters(), model.parameters(), strict=True))
    part = adapt(model, (X,), loss, steps=2, parameters=lambda m: m[4].parameters())
    changed = [not torch.equal(a, b) for a, b in zip(part.parameters(), model.parameters(), strict=True)]
    assert changed == [False] * 4 + [True] * 2


def test_every_clip_starts_anew() -> None:
    model = network()
    first = adapt(model, (X,), loss, steps=3)
    adapt(model, (2 * X,), lambda y: y.square().sum(), steps=3)
    again = adapt(model, (X,), loss, steps=3)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_more_steps_go_further_down() -> None:
    model = network()
    values = [loss(adapt(model, (X,), loss, steps=steps, lr=0.01)(X)).item() for steps in (1, 10, 100)]
    assert loss(model.eval()(X)).item() > values[0] > values[1] > values[2]


def test_gradients_may_be_off_around_it() -> None:
    with torch.no_grad():
        tuned = adapt(network(), (X,), loss, steps=2)
    assert not torch.equal(tuned[4].bias, network()[4].bias)


def test_parameters_without_a_gradient_stay() -> None:
    model = nn.ModuleDict({"used": nn.Linear(3, 1), "idle": nn.Linear(3, 1)})

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: Tensor) -> Any:
            return {"y": self.inner["used"](x)}

    tuned = adapt(Wrapped(), (X,), lambda out: out["y"].square().mean(), steps=1)
    assert torch.equal(tuned.inner["idle"].weight, model["idle"].weight)
    assert not torch.equal(tuned.inner["used"].weight, model["used"].weight)


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        (TypeError, r"model must be an nn.Module, got function", {"model": lambda x: x}),
        (TypeError, r"inputs must be a tuple, of the arguments of the model's call, got Tensor", {"inputs": X}),
        (ValueError, r"steps must be at least 1, got 0", {"steps": 0}),
        (TypeError, r"steps must be an integer, got 1\.5", {"steps": 1.5}),
        (ValueError, r"lr must be positive and finite, got 0", {"lr": 0}),
        (ValueError, r"lr must be positive and finite, got nan", {"lr": math.nan}),
        (ValueError, r"loss does not depend on the model", {"loss": lambda y: torch.ones((), requires_grad=True) * 2}),
        (ValueError, r"loss does not depend on the model", {"loss": lambda y: torch.ones(())}),
        (ValueError, r"loss must return a scalar, got shape \(5, 2\)", {"loss": lambda y: y}),
        (TypeError, r"the result of loss must be a tensor, got float", {"loss": lambda y: 1.0}),
        (ValueError, r"parameters must choose at least one .* got none", {"parameters": lambda m: []}),
        (ValueError, r"parameters must choose at least one .* got none", {"model": nn.ReLU()}),
    ],
)
def test_refuses(error: type[Exception], match: str, changes: dict) -> None:
    given = {"model": network(), "inputs": (X,), "loss": loss, **changes}
    with pytest.raises(error, match=match):
        adapt(**given)
