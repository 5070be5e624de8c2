"""Soft counts against the printed formula, in value and derivatives."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from tests.discrete.confusion.samples import Y, Z, eq_1
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from throughline.discrete.confusion import (
    soft_confusion,
)


@pytest.mark.parametrize("steepness", [1.0, 10.0, 73.0])
def test_counts_are_sums_of_the_printed_formula(steepness: float) -> None:
    a, y, w = eq_1(Z.numpy(), steepness), Y.numpy(), np.linspace(0, 2, len(Y))
    counts = soft_confusion(Z, Y, amplification=steepness, weight=torch.as_tensor(w))
    expected = (w * y * a, w * (1 - y) * a, w * y * (1 - a), w * (1 - y) * (1 - a))
    for ours, theirs in zip(counts, expected, strict=True):
        assert ours.item() == pytest.approx(theirs.sum(), rel=1e-12)
    from_p = soft_confusion(Z.sigmoid(), Y, amplification=steepness, weight=torch.as_tensor(w), from_logits=False)
    torch.testing.assert_close(tuple(from_p), tuple(counts), rtol=1e-10, atol=1e-12)


def test_no_amplification_counts_probabilities() -> None:
    counts = soft_confusion(Z, Y, amplification=None)
    assert counts.tp.item() == pytest.approx((Y * Z.sigmoid()).sum().item())
    assert counts.tn.item() == pytest.approx(((1 - Y) * (-Z).sigmoid()).sum().item())


def test_confident_logits_are_hard_counts() -> None:
    z = torch.tensor([20.0, 20.0, -20.0, -20.0, -20.0])
    counts = soft_confusion(z, torch.tensor([1, 0, 1, 0, 0]))
    torch.testing.assert_close(torch.stack(counts), torch.tensor([1.0, 1.0, 1.0, 2.0]))


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(0, 1), st.floats(0, 9)), min_size=1, max_size=12))
def test_counts_are_shares_of_the_total_weight(rows: list[tuple[float, float, float]]) -> None:
    z, y, w = torch.tensor(rows, dtype=torch.float64).unbind(1)
    counts = torch.stack(soft_confusion(z, y, weight=w))
    assert (counts >= 0).all()
    torch.testing.assert_close(counts.sum(), w.sum())
    flipped = soft_confusion(-z, 1 - y, weight=w)  # the other class as the positive one
    torch.testing.assert_close(counts, torch.stack((flipped.tn, flipped.fn, flipped.fp, flipped.tp)))


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("amplification", [73.0, 5.0, None])
def test_first_and_second_derivatives(amplification: float | None, from_logits: bool) -> None:
    draw = torch.Generator().manual_seed(1)
    z, y, w = (torch.rand(size, dtype=torch.float64, generator=draw) for size in ((5, 3), (5, 3), (5, 1)))
    z = (z - 0.5) * 0.4 if from_logits else z * 0.2 + 0.4
    inputs = tuple(t.requires_grad_() for t in (z, y, w))

    def counts(z: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        return tuple(soft_confusion(z, y, weight=w, amplification=amplification, from_logits=from_logits, dim=0))

    assert gradcheck(counts, inputs)
    assert gradgradcheck(counts, inputs)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("z", [-45.0, -20.0, -1.0, -1e-9, 0.0, 1e-3, 0.3, 5.0, 16.0, 30.0, 45.0])
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_float32_keeps_the_tails(z: float, target: float, create_graph: bool) -> None:
    single = torch.tensor([z], requires_grad=True)
    counts = soft_confusion(single, torch.tensor([target]))
    (slope,) = torch.autograd.grad(counts.tp + 3 * counts.fn + counts.fp, single, create_graph=create_graph)
    s = 36.5 * math.tanh(z / 2)
    exact = 73 * expit(s) * expit(-s) * expit(z) * expit(-z) * (-2 if target else 1)
    assert slope.item() == pytest.approx(exact, rel=2e-5, abs=0)
    assert exact != 0
    true = counts.tp if target else counts.fp
    assert true.item() == pytest.approx(expit(s), rel=2e-5, abs=0)


def test_a_zero_start_has_the_largest_gradient() -> None:
    z = torch.zeros(4, requires_grad=True)
    soft_confusion(z, torch.ones(4)).tp.backward()
    torch.testing.assert_close(z.grad, torch.full((4,), 73 / 16))
