"""Straight-through estimators: exact values, and the gradient of what they stand for."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from throughline.core.relaxation import straight_through, straight_through_categorical


def random(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_value_is_the_functions_and_the_gradient_that_of_the_identity() -> None:
    x, incoming = random(5, 3).requires_grad_(), random(5, 3, seed=1)
    value = straight_through(torch.floor, x)
    assert torch.equal(value, x.detach().floor())
    value.backward(incoming)
    assert torch.equal(x.grad, incoming)


def test_the_other_arguments_are_constants() -> None:
    x, scale = random(4).requires_grad_(), random(4, seed=1).requires_grad_()
    value = straight_through(lambda x, scale, power: (x * scale) ** power, x, scale, 2)
    assert torch.equal(value, (x.detach() * scale.detach()) ** 2)
    gradients = torch.autograd.grad(value.sum(), [x, scale], allow_unused=True)
    assert torch.equal(gradients[0], torch.ones(4, dtype=torch.float64))
    assert gradients[1] is None
    assert not straight_through(torch.mul, x.detach(), scale).requires_grad
    with torch.no_grad():
        assert not straight_through(torch.round, x).requires_grad


def test_values_beyond_the_reach_of_a_sum_stay_exact() -> None:
    """Hard + (soft - soft.detach()) is NaN at an infinity and loses the sign of zero."""
    x = torch.tensor([torch.inf, -0.0, 1e30], requires_grad=True)
    value = straight_through(torch.round, x)
    assert value.tolist() == [torch.inf, 0.0, x[2].item()]
    assert value[1].signbit()


def test_results_may_be_changed_in_place() -> None:
    x = random(4).requires_grad_()
    straight_through(torch.round, x).mul_(2).sum().backward()
    assert x.grad.tolist() == [2.0] * 4


@pytest.mark.parametrize("n", [1, 2, 5])
def test_every_category_has_the_gradient_of_softmax(n: int) -> None:
    logits, incoming = random(n).requires_grad_(), random(n, seed=1)
    jacobian = torch.autograd.functional.jacobian(lambda z: z.softmax(0), logits.detach())
    for index in range(n):
        hot = straight_through_categorical(logits, index)
        assert torch.equal(hot, F.one_hot(torch.tensor(index), n).double())
        (found,) = torch.autograd.grad(hot, logits, incoming)
        torch.testing.assert_close(found, jacobian.mT @ incoming)


def test_the_estimator_is_the_derivative_of_the_mean_when_the_loss_is_linear() -> None:
    """Over all draws, weighted by their probabilities: the derivative of Σ p c, by finite differences."""
    logits, costs, step = random(4).requires_grad_(), random(4, seed=1), 1e-6
    estimates = [torch.autograd.grad(straight_through_categorical(logits, i) @ costs, logits)[0] for i in range(4)]
    with torch.no_grad():
        mean = sum(p * e for p, e in zip(logits.softmax(0), estimates, strict=True))
        shifts = step * torch.eye(4, dtype=torch.float64)
        slope = [((logits + s).softmax(0) - (logits - s).softmax(0)) @ costs / (2 * step) for s in shifts]
    torch.testing.assert_close(mean, torch.stack(slope), rtol=0, atol=1e-9)
    for estimate in estimates:  # and it is exact for every draw
        torch.testing.assert_close(estimate, mean)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6), st.data())
def test_gradients_sum_to_zero_and_stay_finite(entries: list[float], data: st.DataObject) -> None:
    logits = torch.tensor(entries, dtype=torch.float64, requires_grad=True)
    index = data.draw(st.integers(0, len(entries) - 1))
    hot = straight_through_categorical(logits, index)
    assert hot.sum() == hot[index] == 1
    (found,) = torch.autograd.grad(hot @ torch.arange(len(entries), dtype=torch.float64), logits)
    assert found.isfinite().all()
    assert abs(found.sum().item()) < 1e-9


def test_an_index_for_each_row_or_one_for_all() -> None:
    logits, index = random(2, 3, 4), torch.tensor([[0, 1, 3], [2, 2, 0]])
    assert torch.equal(straight_through_categorical(logits, index), F.one_hot(index, 4).double())
    for one in (2, torch.tensor(2)):
        assert torch.equal(straight_through_categorical(logits, one), F.one_hot(torch.full((2, 3), 2), 4).double())


def test_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"function must return what x is, \(3,\) of torch.float64, got \(\) of"):
        straight_through(torch.sum, random(3).requires_grad_())
    with pytest.raises(ValueError, match=r"got \(3,\) of torch.int64"):
        straight_through(lambda x: x.long(), random(3))
