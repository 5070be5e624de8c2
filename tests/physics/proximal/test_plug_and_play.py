"""Plug-and-play iterations: closed forms, the objective that falls, and deepinv's own algorithms."""

import math
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.physics.proximal.deepinv_alone import deepinv_alone
from torch import Tensor

from throughline.physics.proximal import (
    InputConvexCNN,
    InputConvexMLP,
    LearnedProximalNetwork,
    PnPResult,
    pnp_admm,
    pnp_pgd,
)

D = torch.float64
Solve = Callable[..., PnPResult]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def operator(
    seed: int = 0, rows: int = 4, columns: int = 3
) -> tuple[Tensor, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """A matrix of norm 1, and its two maps of batches."""
    a = torch.randn(rows, columns, dtype=D, generator=seeded(seed))
    a = a / torch.linalg.matrix_norm(a, 2)
    return a, lambda x: x @ a.T, lambda y: y @ a


def ridge(x: Tensor) -> Tensor:
    return x / 1.5  # the prox of ‖x‖²/4


@settings(max_examples=20)
@given(seed=st.integers(0, 999), weight=st.floats(0.2, 1.0))
def test_pgd_finds_the_ridge_solution(seed: int, weight: float) -> None:
    a, forward, adjoint = operator(seed)
    y = torch.randn(3, 4, dtype=D, generator=seeded(seed + 1))
    found = pnp_pgd(y, forward, adjoint, ridge, step_size=weight, max_iter=2000, tol=1e-13)
    expected = torch.linalg.solve(weight * a.T @ a + 0.5 * torch.eye(3, dtype=D), weight * (y @ a).T).T
    torch.testing.assert_close(found.solution, expected, rtol=1e-8, atol=1e-9)


@settings(max_examples=20)
@given(seed=st.integers(0, 999), rho=st.floats(0.3, 3.0))
def test_admm_finds_the_ridge_solution(seed: int, rho: float) -> None:
    """A fixed point minimises h + ρR."""
    a, forward, adjoint = operator(seed)
    y = torch.randn(3, 4, dtype=D, generator=seeded(seed + 1))
    found = pnp_admm(y, forward, adjoint, ridge, rho=rho, max_iter=3000, tol=1e-13, cg_tol=1e-13)
    expected = torch.linalg.solve(a.T @ a + 0.5 * rho * torch.eye(3, dtype=D), (y @ a).T).T
    torch.testing.assert_close(found.solution, expected, rtol=1e-7, atol=1e-8)


def test_soft_threshold_finds_the_lasso_solution() -> None:
    """Against its optimality: the gradient of the data term is −sign(x) where x is not 0, and within ±1 where it is."""
    _, forward, adjoint = operator(2, 8, 5)
    y = 8 * torch.randn(4, 8, dtype=D, generator=seeded(3))
    found = pnp_pgd(y, forward, adjoint, lambda x: x.sign() * (x.abs() - 1).clamp(min=0), max_iter=20_000, tol=1e-14)
    slope = adjoint(forward(found.solution) - y)
    active = found.solution != 0
    assert active.any()
    assert not active.all()
    torch.testing.assert_close(slope[active], -found.solution.sign()[active], atol=1e-8, rtol=0)
    assert slope[~active].abs().max() <= 1 + 1e-9


def test_objective_never_rises_because_f_is_an_exact_prox() -> None:
    """F = η h + R along the iterates x_{k+1} = f(v_k), with R(x_{k+1}) = prior_at_output(v_k) without an inversion."""
    torch.manual_seed(0)
    f = LearnedProximalNetwork(InputConvexMLP(3, 16, depth=2, strong_convexity=0.1)).to(D)
    _, forward, adjoint = operator()
    y = torch.randn(5, 4, dtype=D, generator=seeded(1))
    for step in (0.3, 1.0):
        values: list[Tensor] = []

        def prox(v: Tensor, step: float = step, values: list[Tensor] = values) -> Tensor:
            x = f(v)
            values.append(step / 2 * (forward(x) - y).square().sum(1) + f.prior_at_output(v))
            return x

        pnp_pgd(y, forward, adjoint, prox, step_size=step, max_iter=60, tol=1e-12)
        falls = torch.stack(values).diff(dim=0)
        assert falls.max() <= 1e-10
        assert falls.min() < -1e-4


def test_admm_converges_for_a_large_rho() -> None:
    torch.manual_seed(0)
    f = LearnedProximalNetwork(InputConvexMLP(3, 16, depth=2, strong_convexity=0.1)).to(D)
    _, forward, adjoint = operator()
    y = torch.randn(5, 4, dtype=D, generator=seeded(1))
    found = pnp_admm(y, forward, adjoint, f, rho=1.5, max_iter=3000, tol=1e-11, cg_tol=1e-12)
    assert found.iterations < 3000
    # the fixed point: z = x and f(x + u) = x with ρu = Aᵀ(y − Ax)
    x = found.solution
    torch.testing.assert_close(f(x + adjoint(y - forward(x)) / 1.5).detach(), x, atol=1e-7, rtol=1e-6)


def test_admm_takes_x_then_u_then_z() -> None:
    a, forward, adjoint = operator()
    y = torch.randn(2, 4, dtype=D, generator=seeded(1))
    seen: list[Tensor] = []

    def prox(v: Tensor) -> Tensor:
        seen.append(v)
        return v.tanh()

    found = pnp_admm(y, forward, adjoint, prox, rho=0.7, max_iter=3, tol=1e-15, cg_tol=1e-13)
    system = torch.linalg.inv(a.T @ a + 0.7 * torch.eye(3, dtype=D))
    x = z = y @ a
    u = torch.zeros_like(x)
    moves = []
    for step in range(3):
        before, x = x, (y @ a + 0.7 * (z - u)) @ system
        u = u + x - z
        torch.testing.assert_close(seen[step], x + u)
        z = (x + u).tanh()
        moves.append(((x - before).norm(dim=1) / before.norm(dim=1)).max())
    torch.testing.assert_close(found.solution, x)  # x is reported, not z
    torch.testing.assert_close(found.residuals, torch.stack(moves))
    assert found.iterations == 3


@pytest.mark.parametrize("solve", [pnp_pgd, pnp_admm])
def test_stops_when_nothing_moves_and_starts_where_it_is_told(solve: Solve) -> None:
    _, forward, adjoint = operator()
    y = torch.randn(2, 4, dtype=D, generator=seeded(1))
    long = solve(y, forward, adjoint, ridge, max_iter=5000, tol=1e-6)
    assert 2 < long.iterations < 5000
    assert long.residuals.shape == (long.iterations,)
    assert long.residuals[-1] <= 1e-6
    if solve is pnp_pgd:
        assert long.residuals[-2] > 1e-6
        again = solve(y, forward, adjoint, ridge, init=long.solution, tol=1e-5)
        assert again.iterations == 1
    short = solve(y, forward, adjoint, ridge, max_iter=2, init=torch.zeros(2, 3, dtype=D))
    assert short.iterations == 2
    assert math.isinf(short.residuals[0])  # from zero any move is infinitely large
    assert not short.solution.requires_grad


def test_admm_goes_on_while_x_rests_but_z_moves() -> None:
    """With A = 1 the first x is its start."""
    half = {"prox": lambda v: v / 2, "rho": 1.0, "tol": 1e-8, "cg_tol": 1e-12}
    found = pnp_admm(torch.ones(1, 3, dtype=D), torch.clone, torch.clone, **half)
    assert found.residuals[0] == 0
    torch.testing.assert_close(found.solution, torch.full((1, 3), 0.5, dtype=D), atol=1e-6, rtol=0)


def test_bounds_clip_every_iterate() -> None:
    seen: list[Tensor] = []

    def forward(x: Tensor) -> Tensor:
        seen.append(x)
        return x

    found = pnp_pgd(torch.tensor([[3.0, -2.0]]), forward, lambda y: y, ridge, init=torch.zeros(1, 2), bounds=(0.0, 1.0))
    assert torch.equal(found.solution, torch.tensor([[1.0, 0.0]]))
    assert all(((x >= 0) & (x <= 1)).all() for x in seen)


def test_networks_leave_no_graph_and_their_weights_alone() -> None:
    f = LearnedProximalNetwork(InputConvexMLP(3, 4, depth=1))
    y = torch.randn(2, 3)
    assert not pnp_pgd(y, torch.clone, torch.clone, f, max_iter=2).solution.requires_grad
    assert all(p.grad is None for p in f.parameters())


def call(solve: Solve, observation: Any = None, prox: Any = ridge, **options: Any) -> PnPResult:
    return solve(torch.ones(2, 3) if observation is None else observation, lambda x: x, lambda y: y, prox, **options)


@pytest.mark.parametrize("solve", [pnp_pgd, pnp_admm])
def test_refuses(solve: Solve) -> None:
    names = ["step_size", "tol"] if solve is pnp_pgd else ["rho", "tol", "cg_tol"]
    for name in names:
        for value in (0.0, -1.0, math.nan):
            with pytest.raises(ValueError, match=f"^{name} must be positive and finite, got {value}"):
                call(solve, **{name: value})
    with pytest.raises(ValueError, match="max_iter must be at least 1, got 0"):
        call(solve, max_iter=0)
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="observation must be finite"):
            call(solve, torch.tensor([[1.0, value]]))
    with pytest.raises(ValueError, match=r"observation must be \(B, \.\.\.\) with B >= 1, got shape \(3,\)"):
        call(solve, torch.ones(3))
    with pytest.raises(TypeError, match=r"observation must be floating point, got torch\.int64"):
        call(solve, torch.ones(2, 3).long())
    with pytest.raises(ValueError, match=r"prox must return the shape it is given, \(2, 3\), got \(2,\)"):
        call(solve, prox=lambda x: x.sum(1))
    if solve is pnp_admm:
        with pytest.raises(ValueError, match="cg_max_iter must be at least 1, got 0"):
            call(solve, cg_max_iter=0)
    else:
        with pytest.raises(ValueError, match=r"bounds must be \(low, high\) with low < high, got \(1\.0, 0\.0\)"):
            call(solve, bounds=(1.0, 0.0))


@pytest.mark.parametrize("solve", [pnp_pgd, pnp_admm])
def test_exact_inside_of_autocast_and_outside_of_transforms(solve: Solve) -> None:
    a = operator()[0].float()
    y = torch.randn(3, 4, generator=seeded())
    problem = (lambda x: x @ a.T, lambda y: y @ a, ridge)
    outside = solve(y, *problem)
    with torch.autocast("cpu", torch.bfloat16):
        inside = solve(y, *problem)
    assert torch.equal(inside.solution, outside.solution)
    with pytest.raises(RuntimeError, match=r"give observation as a batch"):
        torch.func.vmap(lambda y: solve(y[None], *problem).solution)(y)


# ---- deepinv ----


@pytest.fixture(scope="module")
def deepinv() -> Iterator[ModuleType]:
    with deepinv_alone() as module:
        yield module


@pytest.fixture(scope="module")
def network() -> LearnedProximalNetwork:
    """Weights that pass images on, with a curvature of their own."""
    torch.manual_seed(0)
    psi = InputConvexCNN(1, 16, hidden=4, strides=(2, 1), head=4, strong_convexity=0.7)
    with torch.no_grad():
        for layer in list(psi.convex)[1:]:
            layer.weight.mul_(500)  # type: ignore[operator,union-attr]
    return LearnedProximalNetwork(psi)


def blurred(deepinv: ModuleType) -> tuple[Any, Tensor]:
    kernel = deepinv.physics.functional.gaussian_blur(psf_size=(7, 7), sigma=(1.0, 1.0))
    physics = deepinv.physics.Blur(kernel, padding="circular")
    return physics, physics.A(torch.rand(2, 1, 16, 16, generator=seeded()))


@pytest.mark.parametrize("name", ["PGD", "ADMM", "HQS"])
def test_is_a_denoiser_of_deepinv(deepinv: ModuleType, network: LearnedProximalNetwork, name: str) -> None:
    physics, y = blurred(deepinv)
    options = {"data_fidelity": deepinv.optim.L2(), "prior": deepinv.optim.PnP(denoiser=network)}
    model = getattr(deepinv.optim, name)(**options, sigma_denoiser=0.1, stepsize=0.8, max_iter=5)
    found = model(y, physics)
    assert found.shape == y.shape
    assert found.isfinite().all()
    assert (found - y).abs().max() > 1e-3


def test_pgd_is_deepinvs(deepinv: ModuleType, network: LearnedProximalNetwork) -> None:
    physics, y = blurred(deepinv)
    theirs = deepinv.optim.PGD(
        data_fidelity=deepinv.optim.L2(),
        prior=deepinv.optim.PnP(denoiser=network),
        sigma_denoiser=0.1,
        stepsize=0.8,
        max_iter=25,
    )(y, physics)
    ours = pnp_pgd(y, physics.A, physics.A_adjoint, network, step_size=0.8, max_iter=25, tol=1e-30)
    assert ours.iterations == 25
    torch.testing.assert_close(ours.solution, theirs, atol=1e-5, rtol=0)
    assert (ours.solution - y).abs().max() > 1e-2
