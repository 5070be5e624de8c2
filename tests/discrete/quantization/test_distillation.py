"""The distillation loss by its formula and Hinton's limit; levels by sensitivity."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.discrete.quantization.draws import random
from torch import Tensor

from throughline.discrete.quantization import (
    allocate_levels,
    distillation_loss,
)


def slow_loss(z: Tensor, t: Tensor, y: Tensor | None, temperature: float, weight: float) -> float:
    total = 0.0
    for i, (a, b) in enumerate(zip(z.numpy(), t.numpy(), strict=True)):
        q, p = (np.exp(v / temperature) / np.exp(v / temperature).sum() for v in (a, b))
        kl = temperature**2 * float((p * np.log(p / q)).sum())
        cross = -float(np.log(np.exp(a)[y[i]] / np.exp(a).sum())) if y is not None else 0.0
        total += kl if y is None else weight * kl + (1 - weight) * cross
    return total / len(z)


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize(("temperature", "weight"), [(5.0, 0.7), (1.0, 0.0), (2.0, 1.0)])
def test_distillation_loss_by_the_formula(temperature: float, weight: float, labels: bool) -> None:
    z, t, y = random(6, 4), random(6, 4, seed=1), torch.arange(6) % 4 if labels else None
    loss = distillation_loss(z, t, y, temperature=temperature, weight=weight)
    assert loss.item() == pytest.approx(slow_loss(z, t, y, temperature, weight), rel=1e-12)
    several = [None if v is None else v.unflatten(0, (2, 3)) for v in (z, t, y)]
    assert distillation_loss(*several, temperature=temperature, weight=weight).item() == pytest.approx(loss.item())


def test_distillation_loss_is_least_at_the_teacher_and_spares_it() -> None:
    z, t = random(6, 4).requires_grad_(), random(6, 4, seed=1).requires_grad_()
    assert distillation_loss(t, t).item() == pytest.approx(0, abs=1e-15)
    distillation_loss(z, t).backward()
    assert t.grad is None
    assert z.grad.abs().sum() > 0


def test_at_high_temperature_it_matches_logits() -> None:
    """Hinton's limit: T² KL tends to the squared distance of centred logits over twice the number of classes."""
    z, t = random(6, 4), random(6, 4, seed=1)
    gap = (z - z.mean(1, keepdim=True)) - (t - t.mean(1, keepdim=True))
    expected = gap.square().sum(1).mean() / 8
    torch.testing.assert_close(distillation_loss(z, t, temperature=1e4), expected, rtol=1e-3, atol=0)


def test_levels_by_hand() -> None:
    # 8 each, the remaining 24 by 1/8, 5/8, 2/8
    assert allocate_levels([1.0, 5.0, 2.0], 16) == [11, 23, 14]
    assert allocate_levels([3.0, 3.0], 4) == [4, 4]
    # shares 2.5 round to 2 each: one too few, for the first of the smallest
    assert allocate_levels([1.0, 1.0], 5) == [5, 5]
    # shares 1.5 of three round to 2 each, and 1 of the largest is taken back from the first
    assert sum(allocate_levels([1.0, 1.0, 1.0], 3)) == 9


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=12).filter(any), st.integers(2, 64))
def test_levels_add_up_and_every_tensor_has_two(scores: list[float], levels: int) -> None:
    shared = allocate_levels(scores, levels)
    assert sum(shared) == levels * len(scores)
    assert min(shared) >= min(2, levels)
    base = max(2, levels // 2)
    total = sum(map(Fraction, scores))
    for own, score in zip(shared, scores, strict=True):  # within the rounding of all of them
        assert abs(own - base - Fraction(score) / total * (levels - base) * len(scores)) <= len(scores)


# ---- masked classes and samples ----


def test_a_masked_class_is_one_that_is_not_there() -> None:
    z, t, y = random(6, 4), random(6, 4, seed=1), torch.arange(6) % 4
    none = torch.full((6, 1), -torch.inf, dtype=torch.float64)
    for labels in (None, y):
        wide = torch.cat([z, none], 1).requires_grad_()
        narrow = z.clone().requires_grad_()
        ours = distillation_loss(wide, torch.cat([t, none], 1), labels)
        expected = distillation_loss(narrow, t, labels)
        assert ours.item() == pytest.approx(expected.item())
        (gradient,) = torch.autograd.grad(ours, wide)
        torch.testing.assert_close(gradient[:, :4], torch.autograd.grad(expected, narrow)[0])
        assert not gradient[:, 4].any()


def test_what_the_teacher_masks_the_student_unlearns() -> None:
    z, t = torch.zeros(1, 3, requires_grad=True), torch.tensor([[1.0, 2.0, -torch.inf]])
    loss = distillation_loss(z, t, temperature=1.0)
    p = t.softmax(-1)[0, :2]
    assert loss.item() == pytest.approx(float((p * (p.log() + np.log(3))).sum()))  # 0 log 0 = 0
    (gradient,) = torch.autograd.grad(loss, z)
    torch.testing.assert_close(gradient, z.softmax(-1) - t.softmax(-1))
    assert distillation_loss(t, t.nan_to_num(neginf=0.0)).isinf()  # the student excludes what the teacher expects


def test_ignored_samples_count_in_no_term() -> None:
    z, t, y = random(6, 4), random(6, 4, seed=1), torch.tensor([0, -100, 2, 3, -100, 1])
    kept = y != -100
    z[1], t[4] = torch.nan, torch.inf  # whatever stands there
    z.requires_grad_()
    loss = distillation_loss(z, t, y)
    assert loss.item() == pytest.approx(distillation_loss(z[kept], t[kept], y[kept]).item())
    (gradient,) = torch.autograd.grad(loss, z)
    assert not gradient[~kept].any()
    assert gradient[kept].abs().sum(1).min() > 0


def test_nothing_to_count_is_zero_without_gradient() -> None:
    z = random(3, 4).requires_grad_()
    loss = distillation_loss(z, random(3, 4, seed=1), torch.full((3,), -100))
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, z)[0].any()
