"""Solvers of linear systems against SciPy's iterates, dense algebra and one system at a time."""

import warnings

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from throughline.core.implicit import conjugate_gradient, neumann_series

D = torch.float64


def definite(n: int, seed: int, *batch: int) -> Tensor:
    a = torch.randn(*batch, n, n, generator=torch.Generator().manual_seed(seed), dtype=D)
    return a @ a.mT / n + 0.1 * torch.eye(n, dtype=D)


@pytest.mark.parametrize("steps", [1, 2, 5, 9])
@pytest.mark.parametrize("warm", [False, True])
def test_iterates_are_those_of_scipy(steps: int, warm: bool) -> None:
    a, b = definite(12, 0), torch.linspace(-1, 1, 12, dtype=D)
    init = torch.full((12,), 0.3, dtype=D) if warm else None
    ours = conjugate_gradient(lambda p: a @ p, b, init=init, steps=steps, tol=1e-14)
    theirs, _ = scipy.sparse.linalg.cg(
        a.numpy(), b.numpy(), x0=None if init is None else init.numpy(), rtol=0, maxiter=steps
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


@given(st.integers(1, 8), st.integers(0, 1000))
def test_as_many_steps_as_unknowns_solve(n: int, seed: int) -> None:
    a = definite(n, seed)
    b = torch.randn(n, generator=torch.Generator().manual_seed(seed + 1), dtype=D)
    x = conjugate_gradient(lambda p: a @ p, b, steps=3 * n, tol=1e-13)
    torch.testing.assert_close(x, torch.linalg.solve(a, b), rtol=1e-6, atol=1e-8)


def test_stops_at_the_tolerance() -> None:
    a, b = definite(50, 1), torch.ones(50, dtype=D)
    products = []

    def count(p: Tensor) -> Tensor:
        products.append(p)
        return a @ p

    x = conjugate_gradient(count, b, steps=500, tol=1e-3)
    residuals = [(a @ conjugate_gradient(lambda p: a @ p, b, steps=k, tol=1e-16) - b).norm() for k in range(1, 40)]
    wanted = next(k for k, r in enumerate(residuals, 1) if r <= 1e-3 * b.norm())
    assert len(products) == wanted
    assert (a @ x - b).norm() <= 1e-3 * b.norm() * (1 + 1e-9)


def test_a_batch_is_a_loop() -> None:
    a = definite(6, 2, 4)
    a[1] = torch.eye(6, dtype=D)  # done after one step, while the others go on
    b = torch.randn(4, 6, generator=torch.Generator().manual_seed(3), dtype=D)
    b[2] = 0  # done at once
    together = conjugate_gradient(lambda p: (a @ p.unsqueeze(-1)).squeeze(-1), b, steps=4, tol=1e-8, batch_dims=1)
    alone = torch.stack(
        [conjugate_gradient(lambda p, m=m: m @ p, v, steps=4, tol=1e-8) for m, v in zip(a, b, strict=True)]
    )
    torch.testing.assert_close(together, alone)
    assert together[2].count_nonzero() == 0
    mapped = torch.func.vmap(lambda m, v: conjugate_gradient(lambda p: m @ p, v, steps=4, tol=1e-8))(a, b)
    torch.testing.assert_close(mapped, alone)


def test_a_system_that_is_done_stays_as_it_is() -> None:
    """A loose tolerance stops one system after a step; the others go on for five more, and must not take it along."""
    a = definite(6, 2, 3)
    a[0] = torch.eye(6, dtype=D) + 1e-3 * definite(6, 5)  # a step leaves it a thousandth of b: enough at 1e-2
    b = torch.randn(3, 6, generator=torch.Generator().manual_seed(3), dtype=D)
    options = {"steps": 6, "tol": 1e-2}
    together = conjugate_gradient(lambda p: (a @ p.unsqueeze(-1)).squeeze(-1), b, batch_dims=1, **options)
    first = conjugate_gradient(lambda p: a[0] @ p, b[0], steps=1)
    torch.testing.assert_close(together[0], first, rtol=1e-12, atol=0)
    further = conjugate_gradient(lambda p: a[0] @ p, b[0], steps=6, tol=1e-14)
    assert (together[0] - further).norm() > 1e-5  # what it would have become


def test_a_system_without_curvature_is_told_of_when_the_others_are_done() -> None:
    """It stops at the first step, the others warn of nothing later."""
    a = definite(6, 2, 3)
    a[1] = -torch.eye(6, dtype=D)
    with pytest.warns(RuntimeWarning, match="without positive curvature"):
        x = conjugate_gradient(lambda p: (a @ p.unsqueeze(-1)).squeeze(-1), torch.ones(3, 6, dtype=D), batch_dims=1)
    assert x[1].count_nonzero() == 0
    torch.testing.assert_close(x[[0, 2]], torch.linalg.solve(a[[0, 2]], torch.ones(2, 6, dtype=D)))


def test_a_system_that_stopped_stays_as_it_is() -> None:
    """Its second direction has no positive curvature; along the residual there would be some again."""
    a = torch.stack([torch.diag(torch.tensor([3.0, 1.0, -0.5], dtype=D)), definite(3, 0)])
    b = torch.ones(2, 3, dtype=D)
    first = conjugate_gradient(lambda p: a[0] @ p, b[0], steps=1)
    with pytest.warns(RuntimeWarning, match="without positive curvature"):
        x = conjugate_gradient(lambda p: (a @ p.unsqueeze(-1)).squeeze(-1), b, batch_dims=1)
    torch.testing.assert_close(x[0], first)
    torch.testing.assert_close(x[1], torch.linalg.solve(a[1], b[1]))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e30])
def test_a_system_without_an_answer_gives_nan_and_the_others_theirs(bad: float) -> None:
    """In b, in the matrix, and beyond what float32 can square; no warning of a curvature that is none."""
    a, b = definite(4, 0, 3).float(), torch.ones(3, 4)
    expected = torch.linalg.solve(a, b)
    spoilt = b.clone()
    spoilt[1, 2] = bad
    x = conjugate_gradient(lambda p: (a @ p.unsqueeze(-1)).squeeze(-1), spoilt, batch_dims=1)
    assert x[1].isnan().all()
    torch.testing.assert_close(x[[0, 2]], expected[[0, 2]], rtol=1e-4, atol=1e-4)
    mapped = torch.func.vmap(lambda m, v: conjugate_gradient(lambda p: m @ p, v))(a, spoilt)
    torch.testing.assert_close(mapped, x, equal_nan=True)
    broken = a.clone()
    broken[1, 2, 2] = torch.nan
    x = conjugate_gradient(lambda p: (broken @ p.unsqueeze(-1)).squeeze(-1), b, batch_dims=1)
    assert x[1].isnan().all()
    torch.testing.assert_close(x[[0, 2]], expected[[0, 2]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("warm", [False, True])
def test_outside_of_gradients_iterates_are_written_over_and_nothing_that_was_given(warm: bool) -> None:
    a, b = definite(6, 1), torch.linspace(-1, 1, 6, dtype=D)
    init = torch.full((6,), 0.3, dtype=D) if warm else None
    places: set[int] = set()

    def product(p: Tensor) -> Tensor:
        places.add(p.data_ptr())
        return a @ p

    for solve in (
        lambda matvec: conjugate_gradient(matvec, b, init=init, steps=4),
        lambda matvec: neumann_series(matvec, b, lr=0.1, steps=4),
    ):
        expected = solve(lambda p: a @ p)
        places.clear()
        with torch.no_grad():
            assert solve(product).equal(expected)
            assert len(places) <= 1 + warm  # the start is one more
            torch.testing.assert_close(solve(lambda p: p), solve(torch.clone))  # an image that is the iterate itself
    assert b.equal(torch.linspace(-1, 1, 6, dtype=D))
    assert init is None or init.equal(torch.full((6,), 0.3, dtype=D))


def test_no_systems_have_no_solutions() -> None:
    x = conjugate_gradient(lambda p: 2 * p, torch.zeros(0, 3), batch_dims=1)
    assert x.shape == (0, 3)


def test_trees_are_one_vector() -> None:
    a, b = definite(5, 4), torch.linspace(1, 2, 5, dtype=D)

    def product(tree: dict[str, object]) -> dict[str, object]:
        image = a @ torch.cat([tree["head"], tree["rest"][0].flatten()])
        return {"head": image[:1], "rest": [image[1:].view(2, 2)]}

    tree = conjugate_gradient(product, {"head": b[:1], "rest": [b[1:].view(2, 2)]}, steps=3, tol=1e-12)
    flat = conjugate_gradient(lambda p: a @ p, b, steps=3, tol=1e-12)
    torch.testing.assert_close(torch.cat([tree["head"], tree["rest"][0].flatten()]), flat)


def test_a_direction_without_curvature_stops_with_a_warning() -> None:
    a = torch.diag(torch.tensor([1.0, -3.0]))
    with pytest.warns(RuntimeWarning, match="without positive curvature"):
        x = conjugate_gradient(lambda p: a @ p, torch.tensor([1.0, 1.0]))
    assert x.count_nonzero() == 0  # what it had: the start
    both = torch.stack([a, torch.eye(2)])
    with pytest.warns(RuntimeWarning, match="without positive curvature"):
        x = conjugate_gradient(lambda p: (both @ p.unsqueeze(-1)).squeeze(-1), torch.ones(2, 2), batch_dims=1)
    torch.testing.assert_close(x, torch.tensor([[0.0, 0.0], [1.0, 1.0]]))


def test_nothing_to_do_divides_nothing_by_nothing() -> None:
    zero = torch.zeros(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert conjugate_gradient(lambda p: 2 * p, zero).equal(zero)
        solved = torch.tensor([1.0, 2.0, 3.0])
        assert conjugate_gradient(lambda p: 2 * p, 2 * solved, init=solved, steps=50).equal(solved)


def test_half_precision_iterates_in_single() -> None:
    a, b = definite(8, 5), torch.linspace(-1, 1, 8, dtype=D)
    x = conjugate_gradient(lambda p: (a.float() @ p.float()).bfloat16(), b.bfloat16(), steps=8)
    assert x.dtype == torch.bfloat16
    torch.testing.assert_close(x.double(), torch.linalg.solve(a, b), rtol=0.1, atol=0.1)


def test_the_series_is_the_dense_sum() -> None:
    a, b = definite(5, 6), torch.linspace(-1, 1, 5, dtype=D)
    step = torch.eye(5, dtype=D) - 0.3 * a
    dense = 0.3 * sum(torch.linalg.matrix_power(step, j) @ b for j in range(8))  # steps + 1 terms
    torch.testing.assert_close(neumann_series(lambda p: a @ p, b, lr=0.3, steps=7), dense)


def test_twenty_products_are_the_default_of_the_series() -> None:
    products = []
    a, b = definite(5, 6), torch.linspace(-1, 1, 5, dtype=D)
    default = neumann_series(lambda p: products.append(p) or a @ p, b, lr=0.3)
    assert len(products) == 20
    torch.testing.assert_close(default, neumann_series(lambda p: a @ p, b, lr=0.3, steps=20), rtol=0, atol=0)
