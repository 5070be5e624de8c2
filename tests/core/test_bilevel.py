"""Hypergradients against closed forms of quadratics, exact ridge solutions and finite differences."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from throughline.core.bilevel import adjoint, hypergradient, inner_hvp, mixed_vjp, unroll
from throughline.core.sorting import relaxed_sort

D = torch.float64
Tree = Any
Loss = Callable[[Any, Any], Tensor]


class Quadratic:
    """F = |y − c|²/2 + w·x and g = yᵀAy/2 − yᵀBx, for which everything has a closed form."""

    def __init__(self, seed: int = 0, n: int = 5, m: int = 3) -> None:
        draw = torch.Generator().manual_seed(seed)
        root = torch.randn(n, n, generator=draw, dtype=D)
        self.a = root @ root.T / n + torch.eye(n, dtype=D)
        self.b = torch.randn(n, m, generator=draw, dtype=D)
        self.c, self.y = torch.randn(2, n, generator=draw, dtype=D)
        self.w, self.x = torch.randn(2, m, generator=draw, dtype=D)
        self.largest = float(torch.linalg.eigvalsh(self.a)[-1])

    def outer(self, x: Tensor, y: Tensor) -> Tensor:
        return (y - self.c).square().sum() / 2 + self.w @ x

    def inner(self, x: Tensor, y: Tensor) -> Tensor:
        return y @ self.a @ y / 2 - y @ self.b @ x

    def estimate(self, **options: Any) -> Tensor:
        result: Tensor = hypergradient(self.outer, self.inner, self.x, self.y, **options)
        return result

    def through(self, u: Tensor) -> Tensor:
        return self.w + self.b.T @ u  # ∇²_xy g = −Bᵀ

    def descended(self, lr: float, steps: int) -> Tensor:
        """The exact gradient of F(x, y_steps): dy_steps/dx = lr·Σ_{j < steps} (I − lr·A)ʲ B."""
        shrink = torch.eye(len(self.a), dtype=D) - lr * self.a
        y, slope = self.y, torch.zeros_like(self.b)
        for _ in range(steps):
            y = y - lr * (self.a @ y - self.b @ self.x)
            slope = shrink @ slope + lr * self.b
        return self.w + slope.T @ (y - self.c)


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_every_estimator_has_its_closed_form(seed: int) -> None:
    q = Quadratic(seed)
    v, lr = q.y - q.c, 1.0 / q.largest
    exact = q.through(torch.linalg.solve(q.a, v))
    close = {"rtol": 1e-8, "atol": 1e-8}
    torch.testing.assert_close(q.estimate(method="cg", steps=30, tol=1e-12), exact, **close)
    torch.testing.assert_close(q.estimate(method="neumann", lr=lr, steps=600), exact, **close)
    shrink = torch.eye(5, dtype=D) - lr * q.a
    series = lr * sum(torch.linalg.matrix_power(shrink, j) @ v for j in range(4))
    torch.testing.assert_close(q.estimate(method="neumann", lr=lr, steps=3), q.through(series), **close)
    torch.testing.assert_close(q.estimate(method="identity", lr=0.3), q.through(0.3 * v), **close)
    torch.testing.assert_close(q.estimate(method="identity"), q.through(v), **close)
    damped = torch.linalg.solve(q.a + 0.7 * torch.eye(5, dtype=D), v)
    torch.testing.assert_close(q.estimate(method="cg", damping=0.7, steps=30, tol=1e-12), q.through(damped), **close)
    for again in (False, True):
        unrolled = q.estimate(method="unrolled", lr=lr, steps=7, checkpoint=again)
        torch.testing.assert_close(unrolled, q.descended(lr, 7), **close)
    torch.testing.assert_close(
        q.estimate(method="finite_difference", lr=0.2), q.descended(0.2, 1), rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(q.estimate(method="finite_difference", lr=0), q.w, **close)


def test_at_the_optimum_all_agree() -> None:
    q = Quadratic(1)
    q.y = torch.linalg.solve(q.a, q.b @ q.x)
    exact = q.through(torch.linalg.solve(q.a, q.y - q.c))
    for options in (
        {"method": "cg", "tol": 1e-12},
        {"method": "neumann", "lr": 1 / q.largest, "steps": 600},
        {"method": "unrolled", "lr": 1 / q.largest, "steps": 600},
    ):
        torch.testing.assert_close(q.estimate(**options), exact, rtol=1e-8, atol=1e-8)


def test_a_penalty_of_ridge_regression() -> None:
    """The derivative of the validation loss by the log penalty, against differences of exact solutions."""
    draw = torch.Generator().manual_seed(0)
    a, b, valid, target = (torch.randn(*s, generator=draw, dtype=D) for s in ((30, 6), (30,), (20, 6), (20,)))
    model = nn.Linear(6, 1, bias=False, dtype=D)

    def solution(log_penalty: float) -> Tensor:
        gram = a.T @ a + torch.eye(6, dtype=D) * torch.tensor(log_penalty, dtype=D).exp()
        return torch.linalg.solve(gram, a.T @ b).unsqueeze(0)

    def outer(x: Tree, y: Tree) -> Tensor:
        return (functional_call(model, y, (valid,)).squeeze(-1) - target).square().mean()

    def inner(x: Tree, y: Tree) -> Tensor:
        fit = (functional_call(model, y, (a,)).squeeze(-1) - b).square().sum()
        return (fit + x["log_penalty"].exp() * y["weight"].square().sum()) / 2

    step = 1e-5
    losses = [outer({}, {"weight": solution(0.4 + s)}) for s in (step, -step)]
    x, y = {"log_penalty": torch.tensor(0.4, dtype=D)}, {"weight": solution(0.4)}
    got = hypergradient(outer, inner, x, y, steps=50, tol=1e-12)["log_penalty"]
    torch.testing.assert_close(got, (losses[0] - losses[1]) / (2 * step), rtol=1e-7, atol=1e-9)


class Classifier:
    """Real modules: a recurrent network whose weights pay a learned penalty, a tensor each; one penalty is unused."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.ModuleDict({"body": nn.RNN(3, 4, batch_first=True), "head": nn.Linear(4, 2)}).double()
        self.y = dict(self.model.named_parameters())
        self.x = {"log": [torch.full((), 1.0, dtype=D) for _ in self.y], "unused": torch.ones(2, dtype=D)}
        self.inputs, self.labels = torch.randn(6, 5, 3, dtype=D), torch.arange(6) % 2

    def logits(self, y: Tree) -> Tensor:
        parts = {k: {n.removeprefix(f"{k}."): p for n, p in y.items() if n.startswith(k)} for k in ("body", "head")}
        states = functional_call(self.model["body"], parts["body"], (self.inputs,))[0]
        return functional_call(self.model["head"], parts["head"], (states[:, -1],))

    def inner(self, x: Tree, y: Tree) -> Tensor:
        penalty = sum(log.exp() * p.square().sum() for log, p in zip(x["log"], y.values(), strict=True))
        return cross_entropy(self.logits(y), self.labels) + penalty

    def outer(self, x: Tree, y: Tree) -> Tensor:
        return cross_entropy(self.logits(y), 1 - self.labels) + y["head.bias"].sum()


OPTIONS = {
    "cg": {"steps": 40, "tol": 1e-10},
    "neumann": {"lr": 0.1, "steps": 200},
    "identity": {},
    "unrolled": {"lr": 0.1, "steps": 4},
    "finite_difference": {"lr": 0.1},
}


@pytest.mark.parametrize("method", OPTIONS)
def test_modules_are_left_alone(method: str) -> None:
    c = Classifier()
    before = {name: p.detach().clone() for name, p in c.y.items()}
    estimate = hypergradient(c.outer, c.inner, c.x, c.y, method=method, **OPTIONS[method])  # type: ignore[arg-type]
    assert estimate["unused"].equal(torch.zeros(2, dtype=D))
    assert all(g.shape == () and g.dtype == D and g != 0 and not g.requires_grad for g in estimate["log"])
    for name, p in c.model.named_parameters():
        assert p.requires_grad
        assert p.grad is None
        assert p.detach().equal(before[name])

    def fails(x: Tree, y: Tree) -> Tensor:
        raise KeyError("no such batch")

    with pytest.raises(KeyError, match="no such batch"):
        hypergradient(c.outer, fails, c.x, c.y, method=method, **OPTIONS[method])  # type: ignore[arg-type]
    assert all(p.detach().equal(before[name]) for name, p in c.model.named_parameters())


def test_against_finite_differences_through_a_network() -> None:
    c = Classifier()
    got = hypergradient(c.outer, c.inner, c.x, c.y, method="unrolled", lr=0.1, steps=4)["log"][1]

    def moved(step: float) -> Tensor:
        x = {"log": [v + step if i == 1 else v for i, v in enumerate(c.x["log"])], "unused": c.x["unused"]}
        return c.outer(x, unroll(c.inner, x, c.y, steps=4, lr=0.1))

    torch.testing.assert_close(got, ((moved(1e-5) - moved(-1e-5)) / 2e-5).detach(), rtol=1e-6, atol=1e-9)
    one = hypergradient(c.outer, c.inner, c.x, c.y, method="unrolled", lr=0.1)
    close = hypergradient(c.outer, c.inner, c.x, c.y, method="finite_difference", lr=0.1, epsilon=1e-3)
    torch.testing.assert_close(close, one, rtol=1e-3, atol=1e-7)


def test_products_are_those_of_dense_matrices() -> None:
    q = Quadratic(3)
    v = torch.linspace(-1, 1, 5, dtype=D)
    torch.testing.assert_close(inner_hvp(q.inner, q.x, q.y, v), q.a @ v)
    torch.testing.assert_close(mixed_vjp(q.inner, q.x, q.y, v), -q.b.T @ v)
    assert inner_hvp(lambda x, y: x @ x * y.sum(), q.x, q.y, v).count_nonzero() == 0  # linear in y


def test_the_adjoint_starts_the_next_one_warm() -> None:
    q = Quadratic(4)
    u = adjoint(q.outer, q.inner, q.x, q.y, tol=1e-12)
    torch.testing.assert_close(q.a @ u, q.y - q.c)
    torch.testing.assert_close(q.estimate(init=u, steps=1), q.through(u))
    cold, warm = (adjoint(q.outer, q.inner, q.x, q.y, steps=1, tol=1e-12, init=i) for i in (None, 0.99 * u))
    assert (warm - u).norm() < 0.1 * (cold - u).norm()
    torch.testing.assert_close(adjoint(q.outer, q.inner, q.x, q.y, method="identity", lr=2.0), 2 * (q.y - q.c))


@pytest.mark.parametrize(("method", "calls"), [("cg", 1), ("neumann", 1), ("identity", 1), ("finite_difference", 3)])
def test_the_inner_loss_is_called_once_for_all_products(method: str, calls: int) -> None:
    q, count = Quadratic(), []

    def counted(x: Tensor, y: Tensor) -> Tensor:
        count.append(1)
        return q.inner(x, y)

    hypergradient(q.outer, counted, q.x, q.y, method=method, **({"lr": 0.1} if method != "cg" else {}))  # type: ignore[arg-type]
    assert len(count) == calls


class Once(torch.autograd.Function):
    """A square whose derivative cannot be differentiated again."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        return y.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * gradient


def test_finite_differences_need_no_second_derivative() -> None:
    x, y = torch.tensor(0.5), torch.tensor([1.0, -2.0])
    inner = lambda x, y: x * Once.apply(y).sum()  # noqa: E731
    got = hypergradient(lambda x, y: y.sum(), inner, x, y, method="finite_difference", lr=0.1)
    torch.testing.assert_close(got, torch.tensor(-0.1 * 2 * (1.0 - 2.0)), rtol=1e-3, atol=1e-5)


def test_checkpoints_inside_the_model_are_welcome() -> None:
    q = Quadratic(5)
    inner = lambda x, y: checkpoint(q.inner, x, y, use_reentrant=False)  # noqa: E731
    torch.testing.assert_close(hypergradient(q.outer, inner, q.x, q.y, tol=1e-12), q.estimate(tol=1e-12))


def test_no_gradient_to_follow() -> None:
    q = Quadratic(6)
    still = lambda x, y: (y - q.y).square().sum() + q.w @ x  # noqa: E731 - its minimum lies at y
    for method, options in OPTIONS.items():
        if method in ("cg", "neumann", "identity"):
            torch.testing.assert_close(hypergradient(still, q.inner, q.x, q.y, method=method, **options), q.w)  # type: ignore[arg-type]
    flat = lambda x, y: 0 * y.sum() + q.w @ x  # noqa: E731
    torch.testing.assert_close(hypergradient(flat, q.inner, q.x, q.y, method="finite_difference", lr=0.1), q.w)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_finite_differences_survive_half_precision(dtype: torch.dtype) -> None:
    q = Quadratic(7)
    a, b, c, w = (t.float() for t in (q.a, q.b, q.c, q.w))
    inner = lambda x, y: (y.float() @ a @ y.float() / 2 - y.float() @ b @ x.float()).to(y.dtype)  # noqa: E731
    outer = lambda x, y: (y.float() - c).square().sum() / 2 + w @ x.float()  # noqa: E731
    got = hypergradient(outer, inner, q.x.to(dtype), q.y.to(dtype), method="finite_difference", lr=0.2)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), q.descended(0.2, 1), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("method", ["cg", "neumann", "identity", "unrolled", "recomputed"])
def test_many_problems_at_once(method: str) -> None:
    problems = [Quadratic(seed) for seed in range(4)]
    options: dict[str, Any] = {"method": method, **OPTIONS.get(method, {})}
    if method == "recomputed":
        options = {"method": "unrolled", "lr": 0.1, "steps": 4, "checkpoint": True}
    if method == "cg":
        problems[2].a = torch.eye(5, dtype=D)  # done after a step
        options["steps"] = 4

    def one(a: Tensor, b: Tensor, c: Tensor, x: Tensor, y: Tensor) -> Tree:
        outer = lambda x, y: (y["y"] - c).square().sum() / 2  # noqa: E731
        inner = lambda x, y: y["y"] @ a @ y["y"] / 2 - y["y"] @ b @ x[0]  # noqa: E731
        return hypergradient(outer, inner, [x], {"y": y}, **options)[0]

    columns = [torch.stack([getattr(p, name) for p in problems]) for name in ("a", "b", "c", "x", "y")]
    torch.testing.assert_close(vmap(one)(*columns), torch.stack([one(*row) for row in zip(*columns, strict=True)]))


def test_unrolled_steps_are_differentiable_twice() -> None:
    draw = torch.Generator().manual_seed(8)
    x, y = (torch.randn(3, generator=draw, dtype=D, requires_grad=True) for _ in range(2))

    def inner(x: Tensor, y: Tensor) -> Tensor:
        return (1 + (y * x).square()).sqrt().sum() + y.square().sum()

    for again in (False, True):
        call = lambda x, y, again=again: unroll(inner, x, y, steps=3, lr=0.2, checkpoint=again)  # noqa: E731
        torch.autograd.gradcheck(call, (x, y))
        torch.autograd.gradgradcheck(call, (x, y))
    with torch.no_grad():
        assert not unroll(inner, x, y, steps=2, lr=0.2).requires_grad


def test_memory_stays_flat_over_outer_steps() -> None:
    """Fifty outer steps of every estimator end where the first five did: no graph outlives its call."""
    code = """
import torch
from torch import nn
from torch.func import functional_call
from throughline.core.bilevel import adjoint, hypergradient
from pathlib import Path

def peak():
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1])

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(400, 400), nn.Tanh(), nn.Linear(400, 10))
data, y = torch.randn(64, 400), dict(model.named_parameters())
x = {name: torch.tensor(0.0) for name in y}
inner = lambda x, y: functional_call(model, y, (data,)).square().mean() + sum(
    x[n].exp() * p.square().sum() for n, p in y.items())
outer = lambda x, y: functional_call(model, y, (data,)).square().mean()
warm, peaks = None, []
for step in range(50):
    warm = adjoint(outer, inner, x, y, init=warm, steps=3)
    for method, options in (
        ("cg", {"init": warm, "steps": 3}),
        ("neumann", {"lr": 0.1, "steps": 3}),
        ("identity", {}),
        ("unrolled", {"lr": 0.1, "steps": 3}),
        ("unrolled", {"lr": 0.1, "steps": 3, "checkpoint": True}),
        ("finite_difference", {"lr": 0.1}),
    ):
        g = hypergradient(outer, inner, x, y, method=method, **options)
        x = {n: x[n] - 1e-3 * g[n] for n in x}
    peaks.append(peak())
print(peaks[4], peaks[-1])
"""
    if sys.platform != "linux":
        pytest.skip("the peak is read from /proc")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    early, late = map(int, out.split())
    assert (
        late - early < 20 * 641
    )  # kB; one set of weights takes 641, and one left behind a call would make it 300 of them


CURVED = {"cg": {"steps": 3}, "neumann": {"lr": 0.1}, "identity": {}, "unrolled": {"lr": 0.1, "steps": 2}}
TOKENS = torch.randn(2, 2, 6, 8, generator=torch.Generator().manual_seed(0))


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return scaled_dot_product_attention(q, k, v)


def by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v


def attending(attention: Callable[..., Tensor], checkpointed: bool = False) -> Loss:
    """The fused kernels take first derivatives only."""

    def call(x: Tensor, y: Tensor) -> Tensor:
        return attention(TOKENS @ y, TOKENS, x * TOKENS).square().mean() + 0.5 * y.square().sum()

    if checkpointed:
        return lambda x, y: checkpoint(call, x, y, use_reentrant=False)
    return call


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of the outer loss, under vmap
@pytest.mark.parametrize("method", CURVED)
def test_attention_is_differentiated_twice(method: str) -> None:
    x, y = torch.tensor(0.7), torch.eye(8) / 2
    options = {"method": method, **CURVED[method]}
    expected = hypergradient(attending(by_hand), attending(by_hand), x, y, **options)
    for loss in (attending(fused), attending(fused, checkpointed=True)):
        torch.testing.assert_close(hypergradient(loss, loss, x, y, **options), expected, rtol=1e-4, atol=1e-6)
    loss, xs = attending(fused), torch.tensor([0.7, -0.4])
    both = vmap(lambda x: hypergradient(loss, loss, x, y, **options))(xs)
    torch.testing.assert_close(both[0], expected, rtol=1e-4, atol=1e-6)


def test_a_transformer_has_hypergradients_and_keeps_its_kernels() -> None:
    layer, x = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0), torch.randn(8, 5, 16)

    def loss(a: Tensor, b: dict[str, Tensor]) -> Tensor:
        return functional_call(layer, b, (x,)).square().mean() + a * sum(p.square().sum() for p in b.values())

    before = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled()
    found = hypergradient(loss, loss, torch.tensor(0.1), dict(layer.named_parameters()), damping=3.0)
    assert found.isfinite()
    assert found != 0
    assert (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled()) == before


FUSED_ONLY = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


@pytest.mark.parametrize(
    ("once", "cause"),
    [
        (lambda y: relaxed_sort(y).values, "a relaxed sort is differentiable once"),
        (lambda y: FUSED_ONLY(TOKENS * y[0], TOKENS, TOKENS)[0], "flash_attention.* is not implemented"),
    ],
)
def test_what_has_no_second_derivative_is_named(once: Callable[[Tensor], Tensor], cause: str) -> None:
    x, y = torch.tensor(0.7), torch.tensor([1.0, 3.0, 2.0])
    inner = lambda x, y: x * once(y).square().sum()  # noqa: E731
    with pytest.raises(RuntimeError, match=rf"^inner_loss must be differentiable twice, got .*{cause}.*finite_diff"):
        hypergradient(lambda x, y: y.sum(), inner, x, y)
    assert hypergradient(lambda x, y: y.sum(), inner, x, y, method="finite_difference", lr=0.1).isfinite()


@pytest.mark.parametrize(("method", "steps"), [("cg", 10), ("neumann", 20), ("unrolled", 1)])
def test_steps_have_the_documented_defaults(method: str, steps: int) -> None:
    problem = Quadratic()
    options = {"method": method, "tol": 1e-15} if method == "cg" else {"method": method, "lr": 0.3 / problem.largest}
    if method == "cg":  # more unknowns than steps, or one step more would not show
        problem = Quadratic(n=40)
    default = problem.estimate(**options)
    torch.testing.assert_close(default, problem.estimate(**options, steps=steps), rtol=0, atol=0)
    for other in (steps + 1, steps - 1):
        if other:
            assert (problem.estimate(**options, steps=other) - default).abs().max() > 1e-9


@pytest.mark.parametrize("method", CURVED)
def test_nan_gives_nan(method: str) -> None:
    """In the right-hand side and in the Hessian."""
    problem = Quadratic()
    options = {"method": method, **CURVED[method]}
    for name in ("c", "a"):
        broken = Quadratic()
        getattr(broken, name)[-1] = torch.nan
        if method != "identity" or name == "c":  # which reads no curvature
            assert broken.estimate(**options).isnan().all(), name
    assert problem.estimate(**options).isfinite().all()
