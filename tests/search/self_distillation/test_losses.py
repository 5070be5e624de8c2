"""The distillation loss and the vote by their formulas, limits and invariances."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import rel_entr
from tests.search.self_distillation.networks import random
from torch.nn import functional as F

from throughline.search.self_distillation import distillation_loss, vote


def test_a_vote_is_the_mean_of_probabilities() -> None:
    p = random(3, 5, 2, 4).softmax(-1)
    np.testing.assert_allclose(vote(p).numpy(), sum(one.numpy() for one in p) / 3)
    logits = random(3, 6, 4)
    assert not torch.allclose(vote(logits.softmax(-1)), logits.mean(0).softmax(-1), atol=1e-2)
    majority = F.one_hot(torch.tensor([[0], [0], [1]]), 2).double()
    assert vote(majority)[0].tolist() == pytest.approx([2 / 3, 1 / 3])


@pytest.mark.parametrize("temperature", [1.0, 4.0, 0.5])
def test_the_loss_is_a_mean_divergence_from_the_teacher(temperature: float) -> None:
    z, q = random(2, 3, 5), random(2, 3, 5, seed=1).softmax(-1)
    p = np.exp(z.numpy() / temperature)
    p /= p.sum(-1, keepdims=True)
    expected = temperature**2 * rel_entr(q.numpy(), p).sum(-1).mean()
    assert distillation_loss(z, q, temperature=temperature).item() == pytest.approx(expected, rel=1e-12)
    for one in (distillation_loss(z[0, 0], q[0, 0]), distillation_loss(z[0, :1], q[0, :1])):  # one sample
        assert one.item() == pytest.approx(F.kl_div(z[0, :1].log_softmax(-1), q[0, :1], reduction="batchmean").item())


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_its_gradient_is_the_difference_of_probabilities(temperature: float) -> None:
    z, q = random(6, 5).requires_grad_(), random(6, 5, seed=1).softmax(-1).requires_grad_()
    distillation_loss(z, q, temperature=temperature).backward()
    torch.testing.assert_close(z.grad, (temperature * ((z / temperature).softmax(-1) - q) / 6).detach())
    assert q.grad is None
    torch.autograd.gradgradcheck(lambda z: distillation_loss(z, q.detach(), temperature=temperature), z)


@given(st.integers(0, 1000), st.floats(0.1, 20.0), st.floats(-50, 50))
def test_it_is_least_at_the_teacher_and_knows_no_shift_of_logits(seed: int, temperature: float, shift: float) -> None:
    z, t = random(4, 5, seed=seed), random(4, 5, seed=seed + 1)
    q = (t / temperature).softmax(-1)
    assert distillation_loss(t, q, temperature=temperature).item() == pytest.approx(0, abs=1e-10 * temperature**2)
    loss = distillation_loss(z, q, temperature=temperature).item()
    assert loss > 0
    assert distillation_loss(z + shift, q, temperature=temperature).item() == pytest.approx(loss, rel=1e-6)


def test_when_hot_it_compares_logits() -> None:
    """Hinton's limit: half the squared distance of centred logits over the number of classes."""
    z, t = random(6, 4), random(6, 4, seed=1)
    gap = (z - z.mean(1, keepdim=True)) - (t - t.mean(1, keepdim=True))
    loss = distillation_loss(z, (t / 1e4).softmax(-1), temperature=1e4)
    torch.testing.assert_close(loss, gap.square().sum(1).mean() / 8, rtol=1e-3, atol=0)


def test_classes_without_probability_count_nothing() -> None:
    q = torch.tensor([[1.0, 0.0, 0.0]])
    z = torch.tensor([[0.3, -0.2, -math.inf]], requires_grad=True)
    loss = distillation_loss(z, q)
    torch.testing.assert_close(loss, F.cross_entropy(z, torch.tensor([0])))
    loss.backward()
    torch.testing.assert_close(z.grad, (z.softmax(-1) - q).detach())
    assert distillation_loss(z.detach(), torch.tensor([[0.5, 0.0, 0.5]])).isposinf()  # the student excludes it


def test_it_runs_in_any_precision() -> None:
    z, q = random(8, 100), random(8, 100, seed=1).softmax(-1)
    wanted = distillation_loss(z, q, temperature=2.0).item()
    for dtype, rel in ((torch.float32, 1e-5), (torch.bfloat16, 5e-2), (torch.float16, 1e-2)):
        loss = distillation_loss(z.to(dtype), q.to(dtype), temperature=2.0)
        assert loss.dtype == dtype
        assert loss.item() == pytest.approx(wanted, rel=rel)
    assert distillation_loss(z.bfloat16(), q, temperature=2.0).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("teacher", "got"),
    [
        ([[2.0, -1.0]], "a least entry of -1 and a sum that is off by 0"),
        ([[1.5, -0.5]], "a least entry of -0.5"),
        ([[0.6, 0.5]], "a sum that is off by 0.1"),
        ([[0.4, 0.5]], "a sum that is off by 0.1"),
        ([[float("nan"), 0.5]], "off by nan"),
    ],
)
def test_asks_for_probabilities(teacher: list[list[float]], got: str) -> None:
    with pytest.raises(ValueError, match=r"teacher must hold probabilities.*softmax\(logits / temp") as caught:
        distillation_loss(torch.zeros(1, 2), torch.tensor(teacher))
    assert got in str(caught.value)


def test_probabilities_may_be_rounded() -> None:
    distillation_loss(torch.zeros(1, 2), torch.tensor([[0.5, 0.5009]]))
    with pytest.raises(ValueError, match="teacher must hold probabilities"):
        distillation_loss(torch.zeros(1, 2), torch.tensor([[0.5, 0.5012]]))
