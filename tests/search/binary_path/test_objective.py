"""Losses and rewards in closed form; the estimator of REINFORCE against enumeration."""

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.search.binary_path.nets import DOUBLE, choice
from torch import nn

from throughline.search.binary_path import hardware_loss, hardware_reward, reinforce_loss


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=DOUBLE, requires_grad=True)


@given(st.floats(0.01, 5), st.floats(1.5, 200), st.floats(1.5, 200), st.floats(0, 3))
def test_forms_are_what_the_paper_and_its_code_have(loss: float, e: float, t: float, s: float) -> None:
    task, expected = scalar(loss), scalar(e)
    linear = hardware_loss(task, expected, reference=t, strength=s)
    assert linear.item() == pytest.approx(loss + s * (e - t) / t)
    slopes = torch.autograd.grad(linear, [task, expected])
    assert [x.item() for x in slopes] == pytest.approx([1, s / t])  # λ₂ is strength / T
    log = hardware_loss(task, expected, reference=t, form="log")
    assert log.item() == pytest.approx(0.2 * loss * (math.log(e) / math.log(t)) ** 0.3)
    (slope,) = torch.autograd.grad(log, expected)
    assert slope.item() == pytest.approx(log.item() * 0.3 / (e * math.log(e)))


def test_at_the_reference_latency_costs_nothing() -> None:
    assert hardware_loss(scalar(2.0), scalar(7.0), reference=7.0).item() == 2
    assert hardware_loss(scalar(2.0), scalar(7.0), reference=7.0, form="log", scale=1.0).item() == 2
    assert hardware_reward(0.8, 7.0, reference=7.0) == 0.8


def test_rewards_of_numbers_and_tensors() -> None:
    assert hardware_reward(0.9, 80.0, reference=40.0) == pytest.approx(0.9 * 2**-0.07)
    assert hardware_reward(0.9, 80.0, reference=40.0, exponent=-0.1) == pytest.approx(0.9 * (40 / 80) ** 0.1)
    many = hardware_reward(torch.tensor([0.9, 0.5]), torch.tensor([20.0, 40.0]), reference=40.0)
    torch.testing.assert_close(many, torch.tensor([0.9 * 0.5**-0.07, 0.5]))


@pytest.mark.parametrize("baseline", [0.0, -3.0, 5.0])
def test_reinforce_is_right_on_average(baseline: float) -> None:
    """Weighted by their probabilities, the estimates of all paths are the derivative of the mean reward."""
    net = nn.ModuleList([choice("a", "b", "c", seed=1), choice("x", "y", seed=2)])
    alphas = [c.alpha for c in net]
    value = lambda i, j: (i + 1) * (j - 0.3) + i  # noqa: E731
    mean, total = torch.tensor(0.0, dtype=DOUBLE), [torch.zeros(3, dtype=DOUBLE), torch.zeros(2, dtype=DOUBLE)]
    for i, j in itertools.product(range(3), range(2)):
        p = net[0].probabilities()[i] * net[1].probabilities()[j]
        mean = mean + p * value(i, j)
        drawn = [{"0": (net[0].names[i],), "1": (net[1].names[j],)}]
        estimate = torch.autograd.grad(reinforce_loss(net, drawn, [value(i, j)], baseline), alphas)
        for sums, one in zip(total, estimate, strict=True):
            sums -= p.detach() * one
    for sums, wanted in zip(total, torch.autograd.grad(mean, alphas), strict=True):
        torch.testing.assert_close(sums, wanted)


def test_reinforce_is_the_mean_over_its_draws() -> None:
    net = nn.ModuleList([choice("a", "b", "c", seed=1), choice("x", "y", seed=2)])
    drawn = [{"0": ("a",), "1": ("y",)}, {"0": ("c",), "1": ("y",)}, {"0": ("a",), "1": ("x",)}]
    rewards = torch.tensor([1.0, -0.5, 2.0])
    each = [reinforce_loss(net, [d], [r], 0.4) for d, r in zip(drawn, rewards.tolist(), strict=True)]
    torch.testing.assert_close(reinforce_loss(net, drawn, rewards, 0.4), sum(each) / 3)
    assert reinforce_loss(net, drawn, [0.4, 0.4, 0.4], 0.4) == 0


BAD: tuple[tuple[dict[str, Any], str], ...] = (
    ({"reference": 0.0}, r"reference must be positive and finite, got 0\.0"),
    ({"reference": -1.0}, r"reference must be positive and finite, got -1\.0"),
    ({"reference": math.inf}, r"reference must be positive and finite, got inf"),
    ({"form": "square"}, r"form must be 'linear' or 'log', got 'square'"),
    ({"reference": 1.0, "form": "log"}, r"reference must be above 1 for its logarithm, got 1\.0"),
    ({"expected": torch.tensor(1.0), "form": "log"}, r"expected must be above 1 for its logarithm, got 1\.0"),
    ({"strength": -0.1}, r"strength must be finite and not negative, got -0\.1"),
    ({"form": "log", "scale": 0.0}, r"scale must be positive and finite, got 0\.0"),
    ({"form": "log", "exponent": -0.3}, r"exponent must be positive and finite, got -0\.3"),
)


@pytest.mark.parametrize(("changes", "match"), BAD)
def test_names_what_a_loss_cannot_take(changes: dict[str, Any], match: str) -> None:
    options = {"expected": torch.tensor(30.0), "reference": 20.0, **changes}
    with pytest.raises(ValueError, match=match):
        hardware_loss(torch.tensor(1.0), options.pop("expected"), **options)


def test_names_what_a_reward_cannot_take() -> None:
    for latency, reference, exponent, match in (
        (0.0, 1.0, -0.07, r"latency must be positive, got 0\.0"),
        (1.0, 0.0, -0.07, r"reference must be positive and finite, got 0\.0"),
        (1.0, 1.0, 0.1, r"exponent must be finite and not positive, got 0\.1"),
        (1.0, 1.0, -math.inf, r"exponent must be finite and not positive, got -inf"),
    ):
        with pytest.raises(ValueError, match=match):
            hardware_reward(0.5, latency, reference=reference, exponent=exponent)


def test_names_what_reinforce_cannot_take() -> None:
    net = nn.ModuleList([choice("a", "b")])
    for drawn, rewards, match in (
        ([], [], r"rewards must be one for each of at least one drawn, got 0 for 0"),
        ([{"0": ("a",)}], [1.0, 2.0], r"got 2 for 1"),
        ([{"1": ("a",)}], [1.0], r"drawn must name choices of the model \(0\), got '1'"),
        ([{"0": ("c",)}], [1.0], r"drawn must be single options, \(a, b\) for 0, got \('c',\)"),
        ([{"0": ("a", "b")}], [1.0], r"drawn must be single options, \(a, b\) for 0, got \('a', 'b'\)"),
        ([{}], [1.0], r"drawn must name at least one choice, got none"),
    ):
        with pytest.raises(ValueError, match=match):
            reinforce_loss(net, drawn, rewards, 0.0)
