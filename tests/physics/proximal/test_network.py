"""The learned proximal network: closed forms of quadratics and the soft threshold, SciPy's minimiser, brute force."""

import gc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from throughline.physics.proximal import InputConvexCNN, InputConvexMLP, LearnedProximalNetwork, keep_convex

D = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Quadratic(nn.Module):
    """½ yᵀQy + bᵀy."""

    def __init__(self, seed: int = 0, size: int = 6, least: float = 0.1) -> None:
        super().__init__()
        root = torch.randn(size, size, dtype=D, generator=seeded(seed))
        self.q = nn.Parameter(root @ root.T / size + least * torch.eye(size, dtype=D))
        self.b = nn.Parameter(torch.randn(size, dtype=D, generator=seeded(seed + 1)))

    def forward(self, y: Tensor) -> Tensor:
        return (y @ self.q * y).sum(-1) / 2 + y @ self.b


class Thresholded(nn.Module):
    """The potential of the soft threshold at 1, whose prior is the sum of absolute values."""

    def forward(self, y: Tensor) -> Tensor:
        return (y.abs() - 1).clamp(min=0).square().flatten(1).sum(1) / 2


def mlp(size: int = 3, convexity: float = 0.2) -> LearnedProximalNetwork:
    torch.manual_seed(0)
    return LearnedProximalNetwork(InputConvexMLP(size, 16, depth=2, strong_convexity=convexity)).to(D)


# ---- forward ----


def test_forward_is_the_gradient_and_leaves_the_input_alone() -> None:
    quadratic = Quadratic()
    f, x = LearnedProximalNetwork(quadratic), torch.randn(4, 6, dtype=D, generator=seeded(2))
    before, version = x.clone(), x._version
    expected = x @ quadratic.q.detach() + quadratic.b.detach()
    with torch.no_grad():
        quiet = f(x)
    with torch.inference_mode():
        inferred, within = f(x), f(x * 1.0)
    for out in (f(x), quiet, inferred, within, f(x, 0.1), f(x, sigma=torch.tensor(0.3))):
        torch.testing.assert_close(out.detach().clone(), expected)
    assert not quiet.requires_grad
    assert not x.requires_grad
    assert x.grad is None
    assert torch.equal(x, before)
    assert x._version == version


def test_a_graph_is_built_only_when_something_needs_it() -> None:
    f, x = mlp(), torch.randn(2, 3, dtype=D)
    assert f(x).requires_grad
    f.requires_grad_(False)
    assert f(x).grad_fn is None
    x.requires_grad_()
    (slope,) = torch.autograd.grad(f(x).sum(), x)
    jacobian = torch.autograd.functional.jacobian(f, x.detach())
    torch.testing.assert_close(slope, jacobian.sum((0, 1)))
    assert x.grad is None
    inner = (x * 2).tanh()  # no leaf
    assert torch.autograd.gradcheck(lambda x: f((x * 2).tanh()), (x,))
    assert f(inner).requires_grad


def test_training_reaches_every_weight() -> None:
    """A detach inside would leave them without a gradient."""
    f = LearnedProximalNetwork(InputConvexCNN(1, 8, hidden=3, strides=(2,), head=4))
    f(torch.rand(2, 1, 8, 8)).square().sum().backward()
    still = {name for name, p in f.named_parameters() if p.grad is None or not p.grad.any()}
    assert not still


# ---- inverse and prior ----


@settings(max_examples=20)
@given(seed=st.integers(0, 999), batch=st.integers(1, 5))
def test_quadratic_in_closed_form(seed: int, batch: int) -> None:
    quadratic = Quadratic(seed)
    f, x = LearnedProximalNetwork(quadratic), torch.randn(batch, 6, dtype=D, generator=seeded(seed))
    q, b = quadratic.q.detach(), quadratic.b.detach()
    y = torch.linalg.solve(q, (x - b).T).T
    torch.testing.assert_close(f.inverse(x, tol=1e-11), y, rtol=1e-7, atol=1e-7)
    expected = ((x - b) * y).sum(1) / 2 - x.square().sum(1) / 2  # ψ* − ½‖x‖²
    torch.testing.assert_close(f.prior(x).detach(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(f.prior_at_output(y).detach(), expected, rtol=1e-6, atol=1e-6)


def test_soft_threshold_has_the_absolute_value_for_a_prior() -> None:
    """Its Hessian is zero between −1 and 1, and its inverse many-valued at 0."""
    f, x = LearnedProximalNetwork(Thresholded()), torch.linspace(-4, 4, 33, dtype=D)[:, None] * torch.ones(1, 2)
    torch.testing.assert_close(f.prior(x), x.abs().sum(1), rtol=1e-6, atol=1e-6)
    y = 5 * torch.randn(50, 2, dtype=D, generator=seeded())
    soft = y.sign() * (y.abs() - 1).clamp(min=0)
    torch.testing.assert_close(f(y), soft)
    torch.testing.assert_close(f.prior_at_output(y), soft.abs().sum(1))


@pytest.mark.parametrize("dtype", [torch.float32, D])
@pytest.mark.parametrize("make", [mlp, lambda: LearnedProximalNetwork(InputConvexCNN(1, 8, hidden=4, strides=(2, 1)))])
def test_inverse_is_scipys_minimiser(make: Callable[[], LearnedProximalNetwork], dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    f = make().to(dtype)
    x = torch.randn(3, *((3,) if isinstance(f.potential, InputConvexMLP) else (1, 8, 8)), dtype=dtype)
    y = f.inverse(x)
    assert y.dtype == dtype
    assert not y.requires_grad
    residual = (f(y).detach() - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
    assert residual.max() <= (1e-6 if dtype == D else 3e-6)
    g = f.to(D)
    for one, target in zip(y.to(D), x.to(D), strict=True):

        def objective(flat: np.ndarray, target: Tensor = target) -> tuple[float, np.ndarray]:
            at = torch.from_numpy(flat).view(1, *target.shape)
            value = g.potential(at).detach() - (at * target).sum()
            return float(value), (g(at)[0] - target).detach().flatten().numpy()

        options = {"gtol": 1e-8, "ftol": 0, "maxiter": 1000}
        found = optimize.minimize(objective, target.flatten().numpy(), jac=True, method="L-BFGS-B", options=options)
        np.testing.assert_allclose(one.flatten().numpy(), found.x, atol=1e-4 if dtype == torch.float32 else 1e-5)


def test_f_is_the_proximal_operator_of_its_prior() -> None:
    """Brute force in one dimension: f(y) minimises ½(x − y)² + R(x) over a grid of x, with R by inversion."""
    f = mlp(1, 0.05)
    with torch.no_grad():
        x = torch.linspace(-3, 3, 2001, dtype=D)[:, None]
        prior = f.prior(x)
        y = torch.linspace(-2, 2, 9, dtype=D)[:, None]
        objective = (x - y.T).square() / 2 + prior[:, None]
        inside = (f(y).abs() < 2.9).flatten()
        assert inside.any()
        torch.testing.assert_close(x[objective.argmin(0)][inside], f(y)[inside], atol=2e-3, rtol=0)


def test_prior_agrees_with_prior_at_output_and_leading_dimensions_with_a_loop() -> None:
    f, y = mlp(), torch.randn(2, 4, 3, dtype=D, generator=seeded())
    x = f(y).detach()
    torch.testing.assert_close(f.prior(x), f.prior_at_output(y), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(f.inverse(x, tol=1e-9), y, rtol=1e-6, atol=1e-6)
    loop = torch.stack([torch.stack([f.prior(one) for one in row]) for row in x])
    torch.testing.assert_close(f.prior(x), loop, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("seed", [16, 60, 156])
def test_inverse_converges_where_the_two_terms_of_the_objective_cancel(seed: int) -> None:
    """ψ(y) and ⟨x, y⟩ are alike and their difference is small: what rounds is the terms, not the difference."""
    torch.manual_seed(seed)
    f = LearnedProximalNetwork(InputConvexMLP(2, strong_convexity=0.1))
    x = f(torch.randn(7, 2)).detach()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = f.inverse(x)
    assert ((f(y) - x).norm(dim=1) <= 1e-6 * x.norm(dim=1).clamp(min=1)).all()


def test_gradient_of_the_prior_is_the_inverse_less_the_point() -> None:
    f, x = mlp(), torch.randn(4, 3, dtype=D, generator=seeded()).requires_grad_()
    (slope,) = torch.autograd.grad(f.prior(x, tol=1e-10).sum(), x)
    torch.testing.assert_close(slope, f.inverse(x, tol=1e-10) - x.detach())
    small = LearnedProximalNetwork(InputConvexMLP(3, 2, depth=1, strong_convexity=0.2)).to(D)
    assert torch.autograd.gradcheck(lambda x, *_: small.prior(x, tol=1e-11), (x, *small.parameters()), atol=1e-4)
    assert torch.autograd.gradcheck(lambda x, *_: small.prior_at_output(x), (x, *small.parameters()))


class Counted(nn.Module):
    """A potential that remembers the batches it was given."""

    def __init__(self, potential: nn.Module) -> None:
        super().__init__()
        self.potential, self.sizes = potential, []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        return self.potential(x)


def test_one_batch_not_one_sample_after_another() -> None:
    f = mlp()
    counts = []
    for size in (1, 64):
        counted = Counted(f.potential)
        LearnedProximalNetwork(counted).inverse(torch.randn(size, 3, dtype=D, generator=seeded()))
        counts.append(len(counted.sizes))
    assert counts[1] < 4 * counts[0]


def test_samples_that_have_converged_stop_moving() -> None:
    """A sample that starts at its own inverse stays to the last bit, and the work goes on without it."""
    counted = Counted(Thresholded())
    x = torch.tensor([[0.0], [3.0]], dtype=D)
    y = LearnedProximalNetwork(counted).inverse(x)
    assert y[0] == 0
    assert float(y[1]) == pytest.approx(4)
    assert counted.sizes[-1] == 1


@pytest.mark.parametrize("method", ["inverse", "prior"])
def test_outside_the_range_is_told(method: str) -> None:
    f = mlp(1, 0.0)  # without strong convexity the slope of a softplus network is bounded
    x = torch.tensor([[1e4], [float(f(torch.zeros(1, 1, dtype=D)).detach())], [-1e4]], dtype=D)
    with pytest.warns(
        RuntimeWarning, match=r"did not converge for 2 of 3 samples: the worst relative residual is [0-9.]+"
    ):
        found = getattr(f, method)(x, max_iter=20)
    assert found.isnan().flatten().tolist() == ([True, False, True] if method == "prior" else [False] * 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert f.prior(x[1:2]).isfinite().all()


def test_too_few_steps_are_told() -> None:
    with pytest.warns(RuntimeWarning, match="did not converge for 4 of 4"):
        assert mlp().prior(torch.full((4, 3), 5.0, dtype=D), max_iter=1).isnan().all()


def test_strong_convexity_makes_the_whole_space_its_range() -> None:
    f, x = mlp(3, 0.01), torch.tensor([[1e3, -1e3, 5e2], [1e-9, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=D)
    torch.testing.assert_close(f(f.inverse(x)).detach(), x, rtol=1e-5, atol=1e-12)


def test_inference_mode_and_half_precision() -> None:
    f = mlp()
    with torch.inference_mode():
        x = torch.randn(3, 3, dtype=D)
        assert f.prior(x).isfinite().all()
    short = mlp().to(torch.bfloat16)
    y = torch.randn(8, 3, generator=seeded())
    with torch.no_grad():
        assert short(y.bfloat16()).dtype == torch.bfloat16
        torch.testing.assert_close(short(y.bfloat16()).double(), f(y.to(D)), rtol=0.05, atol=0.05)


class Returns(nn.Module):
    def __init__(self, make: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Tensor) -> Tensor:
        return self.make(x)


@pytest.mark.parametrize("method", ["forward", "inverse", "prior", "prior_at_output"])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda x: x.square().sum(), r"\(\)"),
        (lambda x: x.square().flatten(1).sum(1, keepdim=True), r"\(4, 1\)"),
        (lambda x: x.square(), r"\(4, 1, 6, 6\)"),
        (lambda x: x.square().flatten(1).sum(1)[:2], r"\(2,\)"),
    ],
)
def test_a_potential_gives_one_scalar_a_sample(method: str, make: Callable[[Tensor], Tensor], shape: str) -> None:
    f = LearnedProximalNetwork(Returns(make))
    with pytest.raises(ValueError, match=rf"one scalar for each sample, got {shape} for x of \(4, 1, 6, 6\)"):
        getattr(f, method)(torch.ones(4, 1, 6, 6))


def test_refuses() -> None:
    f, x = mlp(), torch.ones(2, 3, dtype=D)
    with pytest.raises(TypeError, match=r"potential must be .* got function"):
        LearnedProximalNetwork(lambda x: x)  # type: ignore[arg-type]
    for method in (f, f.inverse, f.prior, f.prior_at_output):
        with pytest.raises(TypeError, match=r"x must be floating point, got torch\.int64"):
            method(x.long())
    for method in (f.inverse, f.prior):
        with pytest.raises(ValueError, match=r"tol must be positive and finite, got 0\.0"):
            method(x, tol=0.0)
        with pytest.raises(ValueError, match="must be at least 1, got 0"):
            method(x, max_iter=0)


# ---- inside of other things ----


@pytest.mark.parametrize("method", ["inverse", "prior", "prior_at_output"])
def test_prices_are_exact_inside_of_autocast(method: str) -> None:
    f = mlp().float()
    x = f(torch.randn(5, 3, generator=seeded())).detach()
    outside = getattr(f, method)(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(getattr(f, method)(x), outside)
        assert f(x).dtype == torch.float32
        short = getattr(f, method)(x.bfloat16())  # as a layer under autocast would hand it over
    torch.testing.assert_close(short, getattr(f, method)(x.bfloat16().float()), rtol=0, atol=0)


def test_what_is_not_finite_has_no_price_and_spoils_no_other() -> None:
    f, x = mlp(), torch.randn(4, 3, dtype=D, generator=seeded())
    spoilt = x.clone()
    spoilt[1, 2], spoilt[3, 0] = torch.nan, torch.inf
    for method in (f.inverse, f.prior):
        found = method(spoilt)  # a warning would be an error
        assert found[[1, 3]].isnan().all()
        torch.testing.assert_close(found[[0, 2]], method(x)[[0, 2]])


def test_a_batch_of_none() -> None:
    f = mlp()
    none = torch.zeros(0, 3, dtype=D)
    assert f(none).shape == f.inverse(none).shape == (0, 3)
    assert f.prior(none).shape == f.prior_at_output(none).shape == (0,)


def test_transforms_of_torch_func_or_the_way_around() -> None:
    f, x = mlp(), torch.randn(4, 3, dtype=D, generator=seeded())
    torch.testing.assert_close(torch.func.vmap(f)(x), f(x))
    torch.testing.assert_close(torch.func.vmap(f.prior_at_output)(x), f.prior_at_output(x))
    for method in (f.inverse, f.prior):
        with pytest.raises(RuntimeError, match=r"no transform of torch\.func allows; give all of x as one batch"):
            torch.func.vmap(method)(x)


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """A group of one process: what reports parameters without a gradient works in it as in a large one."""
    distributed.init_process_group("gloo", f"file://{tmp_path}/meet", world_size=1, rank=0)
    yield
    gc.collect()  # a wrapped model that outlives its process group can wait for the threads of it for ever
    distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
@pytest.mark.filterwarnings("ignore:Grad strides do not match:UserWarning")  # of kernels with one channel
@pytest.mark.parametrize(
    ("make", "shape"),
    [(lambda: InputConvexMLP(3, 4), (3,)), (lambda: InputConvexCNN(1, 4, hidden=2, strides=(2,), head=2), (1, 4, 4))],
)
def test_learns_in_data_parallel(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    wrapped = DistributedDataParallel(LearnedProximalNetwork(make()))
    optimizer = torch.optim.SGD(wrapped.parameters(), 0.1)
    handle = keep_convex(wrapped, optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        x = torch.randn(5, *shape, generator=seeded())
        (wrapped(x) - x).square().sum().backward()
        assert all(p.grad is not None for p in wrapped.parameters())
        optimizer.step()
    bound = list(wrapped.module.potential.convex)[1:]
    assert all((layer.weight >= 0).all() for layer in bound)
    handle.remove()


def test_the_bias_of_a_potential_moves_its_value_alone() -> None:
    f, x = mlp(), torch.randn(4, 3, dtype=D, generator=seeded())
    before, value = f(x).detach(), f.potential(x).detach()
    (by_value,) = torch.autograd.grad(f.potential(x).sum(), f.potential.skip[-1].bias)
    (by_slope,) = torch.autograd.grad(f(x).sum(), f.potential.skip[-1].bias)
    assert (by_value, by_slope) == (4, 0)
    with torch.no_grad():
        f.potential.skip[-1].bias += 3
    torch.testing.assert_close(f(x).detach(), before, rtol=0, atol=0)
    torch.testing.assert_close(f.potential(x).detach(), value + 3)
