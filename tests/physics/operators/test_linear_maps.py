"""Sparse products and solutions against dense algebra."""

import torch
from tests.physics.operators.samples import normal

from throughline.physics.operators.linear_maps import LinearMap, Solver


def test_products_are_those_of_the_dense_matrix() -> None:
    dense = normal(7, 5) * (normal(7, 5, seed=1) > 0)
    linear = LinearMap(dense.numpy())
    x, h = normal(2, 3, 5).requires_grad_(), normal(2, 3, 5, 4).requires_grad_()
    torch.testing.assert_close(linear(x), x @ dense.T)
    torch.testing.assert_close(linear(x[0, 0]), dense @ x[0, 0])
    torch.testing.assert_close(linear.features(h), dense @ h)
    torch.testing.assert_close(linear.features(h[0, 0]), dense @ h[0, 0])
    for call, leaf in ((linear, x), (linear.features, h)):
        assert torch.autograd.gradcheck(lambda x, call=call: call(x) ** 2, leaf)
        assert torch.autograd.gradgradcheck(lambda x, call=call: call(x) ** 2, leaf)
    assert linear.transposed.transposed is linear
    for copies in range(2, 20):
        linear.features(normal(copies, 5, 1))
    assert len(linear._kept) <= 8  # a batch of every size is not kept for ever


def test_solutions_are_those_of_the_dense_matrix() -> None:
    dense = normal(6, 6) + 6 * torch.eye(6, dtype=torch.float64)  # not symmetric: the transpose must be one
    solver, b = Solver(dense.numpy()), normal(2, 3, 6).requires_grad_()
    torch.testing.assert_close(solver(b), torch.linalg.solve(dense, b.unsqueeze(-1)).squeeze(-1))
    assert torch.autograd.gradcheck(lambda b: solver(b) ** 2, b)
    assert torch.autograd.gradgradcheck(lambda b: solver(b) ** 2, b)
