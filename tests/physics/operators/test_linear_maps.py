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


def test_maps_are_mapped_over() -> None:
    """By vmap, by grad and by both, over any dimension of a batch."""
    dense = normal(7, 5) * (normal(7, 5, seed=1) > 0)
    square = normal(5, 5, seed=2) + 5 * torch.eye(5, dtype=torch.float64)
    linear, solver = LinearMap(dense.numpy()), Solver(square.numpy())
    x, h = normal(4, 3, 5), normal(4, 3, 5, 2)
    for call, batch in ((linear, x), (linear.features, h), (solver, x)):
        torch.testing.assert_close(torch.func.vmap(call)(batch), call(batch))
        torch.testing.assert_close(torch.func.vmap(call, in_dims=1, out_dims=1)(batch), call(batch))
        torch.testing.assert_close(torch.func.vmap(torch.func.vmap(call))(batch), call(batch))
        slope = torch.func.grad(lambda b, call=call: call(b).pow(3).sum())
        leaf = batch.clone().requires_grad_()
        (expected,) = torch.autograd.grad(call(leaf).pow(3).sum(), leaf)
        torch.testing.assert_close(slope(batch), expected)
        torch.testing.assert_close(torch.func.vmap(slope)(batch), expected)
