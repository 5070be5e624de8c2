"""Rotations against SciPy, the matrix exponential and Gram-Schmidt, and derivatives where formulas divide by 0."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from throughline.core.rotation import geodesic_distance, rotation_from_6d, rotation_to_6d, so3_exp, so3_log

SIZES = (0.0, 1e-12, 1e-5, 0.01, 0.0999, 0.1001, 0.2, 0.4999, 0.5001, 1.0, 2.0, 3.0, math.pi - 1e-7, math.pi)


def vectors(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def turns(size: float, count: int = 6) -> Tensor:
    """Rotation vectors of one length."""
    v = vectors(count)
    return size * v / v.norm(dim=-1, keepdim=True)


def generators() -> Tensor:
    """[e_i]ₓ, the derivatives of the exponential at 0."""
    return torch.linalg.cross(torch.eye(3).double()[:, None].expand(3, 3, 3), torch.eye(3).double()[None]).mT


@pytest.mark.parametrize("size", [*SIZES, 7.0, 100.0])
def test_the_exponential_is_scipys(size: float) -> None:
    w = turns(size)
    expected = torch.from_numpy(Rotation.from_rotvec(w.numpy()).as_matrix())
    torch.testing.assert_close(so3_exp(w), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", SIZES)
def test_derivatives_of_the_exponential_are_those_of_the_series_of_matrices(size: float) -> None:
    (w,) = turns(size, 1)
    ours = torch.autograd.functional.jacobian(so3_exp, w)
    hat = generators()
    theirs = torch.autograd.functional.jacobian(lambda v: torch.linalg.matrix_exp((v[:, None, None] * hat).sum(0)), w)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_at_zero_the_derivatives_are_the_generators() -> None:
    zero = torch.zeros(3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(so3_exp, zero)
    torch.testing.assert_close(jacobian.movedim(-1, 0), generators(), rtol=0, atol=0)
    back = torch.autograd.functional.jacobian(so3_log, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(back, generators() / 2, rtol=0, atol=1e-15)  # of the antisymmetric part


@pytest.mark.parametrize("size", SIZES)
def test_the_logarithm_leads_back(size: float) -> None:
    w = turns(size)
    found = so3_log(torch.from_numpy(Rotation.from_rotvec(w.numpy()).as_matrix()))
    if size == math.pi:  # either end of the axis is right
        found = found * (found * w).sum(-1, keepdim=True).sign()
    torch.testing.assert_close(found, w, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_half_turn_about_each_axis(axis: int) -> None:
    w = math.pi * torch.eye(3)[axis]
    R = (2 * torch.eye(3)[axis].outer(torch.eye(3)[axis]) - torch.eye(3)).requires_grad_()
    found = so3_log(R)
    torch.testing.assert_close(found.detach().abs(), w)
    found.sum().backward()
    assert R.grad.isfinite().all()


@pytest.mark.parametrize("size", [1e-4, 0.15, 1.0, 3.0])
def test_the_derivative_of_the_logarithm_undoes_that_of_the_exponential(size: float) -> None:
    (w,) = turns(size, 1)
    jacobian = torch.autograd.functional.jacobian(lambda v: so3_log(so3_exp(v)), w)
    torch.testing.assert_close(jacobian, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-10)


def test_single_precision_keeps_its_digits_at_small_and_at_half_turns() -> None:
    for size, slack in ((1e-4, 1e-10), (0.3, 1e-6), (math.pi - 1e-3, 1e-5)):
        w = turns(size)
        torch.testing.assert_close(so3_log(so3_exp(w.float())).double(), w, rtol=0, atol=slack)


def test_six_numbers_are_orthogonalised_in_turn() -> None:
    a, b = vectors(20), vectors(20, seed=1)
    found = rotation_from_6d(torch.cat([3 * a, 0.2 * b], -1)).numpy()
    for R, first, second in zip(found, a.numpy(), b.numpy(), strict=True):
        q, r = np.linalg.qr(np.stack([first, second], 1))
        q = q * np.sign(np.diag(r))
        np.testing.assert_allclose(R, np.column_stack([q, np.cross(q[:, 0], q[:, 1])]), atol=1e-13)


NUMBER = st.floats(-1e6, 1e6).map(lambda x: x if abs(x) > 1e-30 else 0.0)  # a gradient goes with 1/|a| and 1/|b|


@given(st.lists(NUMBER, min_size=6, max_size=6))
def test_any_six_numbers_give_a_rotation(entries: list[float]) -> None:
    for dtype, slack in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        x = torch.tensor(entries, dtype=dtype, requires_grad=True)
        R = rotation_from_6d(x)
        torch.testing.assert_close(R @ R.mT, torch.eye(3, dtype=dtype), rtol=0, atol=slack)
        assert torch.linalg.det(R) > 0
        assert torch.autograd.grad(R.sum(), x)[0].isfinite().all()


@pytest.mark.parametrize(
    "x", [[0.0] * 6, [1.0, 2, 3, 2, 4, 6], [1.0, 2, 3, -1, -2, -3], [0.0, 0, 0, 1, 2, 3], [0.0, 1, 0, 0, 0, 0]]
)
def test_what_spans_no_plane_still_gives_a_rotation(x: list[float]) -> None:
    given = torch.tensor(x, requires_grad=True)
    R = rotation_from_6d(given)
    torch.testing.assert_close(R.mT @ R, torch.eye(3), rtol=0, atol=1e-6)
    assert torch.linalg.det(R) > 0
    if any(x[:3]):
        torch.testing.assert_close(R[:, 0], torch.nn.functional.normalize(given[:3], dim=0))
    R.square().sum().backward()
    assert given.grad.isfinite().all()


def test_a_second_vector_along_the_first_does_not_matter() -> None:
    """Rounding leaves something of it, which must not decide: its gradient would be without bound."""
    for dtype in (torch.float32, torch.float64):
        a = vectors(50).to(dtype)
        x = torch.cat([a, a * 1.7], -1).requires_grad_()
        (rotation_from_6d(x) * vectors(3).to(dtype)).sum().backward()
        assert not x.grad[:, 3:].any()
        assert x.grad[:, :3].abs().max() < 100


def test_six_numbers_are_two_columns_and_lead_back() -> None:
    R = torch.from_numpy(Rotation.random(5, random_state=0).as_matrix())
    six = rotation_to_6d(R)
    assert torch.equal(six, torch.cat([R[:, :, 0], R[:, :, 1]], -1))
    torch.testing.assert_close(rotation_from_6d(six), R)


@pytest.mark.parametrize("size", SIZES)
def test_the_distance_is_the_angle_between(size: float) -> None:
    first = Rotation.random(6, random_state=0)
    second = first * Rotation.from_rotvec(turns(size).numpy())
    a, b = (torch.from_numpy(r.as_matrix()) for r in (first, second))
    torch.testing.assert_close(
        geodesic_distance(a, b), torch.full((6,), size, dtype=torch.float64), rtol=0, atol=1e-14 if size < 3 else 1e-13
    )
    torch.testing.assert_close(geodesic_distance(a, b), geodesic_distance(b, a), rtol=0, atol=1e-14)


def test_the_distance_has_a_gradient_everywhere_and_is_flat_at_its_kinks() -> None:
    for size, slope in ((0.0, 0.0), (1e-4, 1.0), (1.5, 1.0), (math.pi - 1e-4, 1.0)):
        angle = torch.tensor(size, dtype=torch.float64, requires_grad=True)
        axis = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        geodesic_distance(torch.eye(3).double(), so3_exp(angle * axis)).backward()
        assert angle.grad.item() == pytest.approx(slope, abs=1e-6)
    half = torch.diag(torch.tensor([1.0, -1.0, -1.0])).requires_grad_()
    assert geodesic_distance(torch.eye(3), half).item() == pytest.approx(math.pi)
    assert not torch.autograd.grad(geodesic_distance(torch.eye(3), half), half)[0].any()


def test_leading_dimensions_of_a_distance_broadcast() -> None:
    R = so3_exp(vectors(4))
    table = geodesic_distance(R[:, None], R)
    assert table.shape == (4, 4)
    assert table.diagonal().abs().max() < 1e-15
    with pytest.raises(
        ValueError, match=r"R1 and R2 must broadcast with each other, got shapes \(4, 3, 3\) and \(3, 3, 3\)"
    ):
        geodesic_distance(R, R[:3])
