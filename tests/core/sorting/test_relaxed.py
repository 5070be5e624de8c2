"""Relaxed sorting networks against diffsort, dense layer matrices, SciPy, and the 0-1 principle."""

import itertools
import math
from typing import get_args

import numpy as np
import pytest
import torch
from diffsort import DiffSortNet
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import cauchy, logistic, norm
from torch import Tensor

from throughline.core.sorting import Distribution, Network, order_probability, relaxed_sort, sorting_network

DISTRIBUTIONS = get_args(Distribution)
NETWORKS = get_args(Network)
D64 = torch.float64


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D64, generator=torch.Generator().manual_seed(seed))


def dense(x: Tensor, network: Network, **options: object) -> tuple[Tensor, Tensor]:
    """P and P x of one vector by multiplying dense layer matrices, comparator by comparator."""
    p = torch.eye(len(x), dtype=x.dtype)
    for layer in sorting_network(len(x), network):
        mixing = torch.eye(len(x), dtype=x.dtype)
        for low, high in layer:
            a = order_probability(x[high] - x[low], **options)
            mixing[low, low] = mixing[high, high] = a
            mixing[low, high] = mixing[high, low] = 1 - a
        p, x = mixing @ p, mixing @ x
    return p, x


# --- the comparator


@pytest.mark.parametrize(("distribution", "law"), [("cauchy", cauchy), ("logistic", logistic), ("gaussian", norm)])
def test_probability_is_a_distribution_function(distribution: Distribution, law: object) -> None:
    x = noise(50)
    expected = torch.as_tensor(law.cdf(3 * x.numpy()))  # type: ignore[attr-defined]
    torch.testing.assert_close(order_probability(x, steepness=3.0, distribution=distribution), expected)


@pytest.mark.parametrize(
    ("distribution", "at"),
    [
        ("reciprocal", {-2.0: 1 / 4, 0.0: 1 / 2, 2.0: 3 / 4}),
        ("optimal", {-1.0: 1 / 16, -0.25: 1 / 4, 0.0: 1 / 2, 0.2: 0.7, 1.0: 15 / 16}),
        ("logistic_phi", {16.0: 1 / (1 + math.exp(-8)), -1 / 16: 1 / (1 + math.exp(1 / 8))}),
    ],
)
def test_probability_by_hand(distribution: Distribution, at: dict[float, float]) -> None:
    values = order_probability(torch.tensor(list(at), dtype=D64), steepness=1.0, distribution=distribution)
    torch.testing.assert_close(values, torch.tensor(list(at.values()), dtype=D64), atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_probability_of_the_opposite_is_the_rest(distribution: Distribution) -> None:
    x = torch.cat([noise(100), torch.tensor([0.0, math.inf, 1e300], dtype=D64)])
    for steepness in (1e-3, 1.0, 1e3):
        p = order_probability(x, steepness=steepness, distribution=distribution)
        assert ((p >= 0) & (p <= 1)).all()
        torch.testing.assert_close(p + order_probability(-x, steepness=steepness, distribution=distribution), p * 0 + 1)
    assert torch.autograd.gradcheck(
        lambda d: order_probability(d, distribution=distribution), noise(7).requires_grad_()
    )


def test_art_lambda_bends_logistic_phi_only() -> None:
    x = torch.tensor([0.1], dtype=D64)
    steeper = order_probability(x, distribution="logistic_phi", art_lambda=0.5)
    torch.testing.assert_close(steeper, torch.sigmoid(10 * x / x.sqrt()), rtol=1e-7, atol=0)
    flat = order_probability(x, distribution="logistic_phi", art_lambda=0.0)
    torch.testing.assert_close(flat, order_probability(x, distribution="logistic"))


# --- the networks


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("n", range(1, 11))
def test_sorts_every_sequence_of_zeros_and_ones(n: int, kind: Network) -> None:
    wires = np.array(list(itertools.product((0, 1), repeat=n)), dtype=np.int64)
    expected = np.sort(wires, 1)
    for layer in sorting_network(n, kind):
        for low, high in layer:
            assert 0 <= low < high < n
            pair = wires[:, [low, high]]
            wires[:, low], wires[:, high] = pair.min(1), pair.max(1)
    np.testing.assert_array_equal(wires, expected)  # by the 0-1 principle it sorts everything


@pytest.mark.parametrize("n", [1, 2, 3, 7, 16, 33])
def test_layers_are_disjoint_and_as_many_as_the_paper_says(n: int) -> None:
    assert len(sorting_network(n)) == n
    doublings = math.ceil(math.log2(n))
    assert len(sorting_network(n, "bitonic")) == doublings * (doublings + 1) // 2
    for kind in NETWORKS:
        for layer in sorting_network(n, kind):
            touched = [wire for pair in layer for wire in pair]
            assert len(touched) == len(set(touched))
    assert sorting_network(n) is sorting_network(n)


# --- the relaxed sort


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize(("network", "n"), [("odd_even", 2), ("odd_even", 7), ("odd_even", 8), ("bitonic", 8)])
@pytest.mark.parametrize("steepness", [0.3, 10.0])
def test_agrees_with_diffsort(network: Network, n: int, distribution: Distribution, steepness: float) -> None:
    x = noise(5, n).float().requires_grad_()
    ours = relaxed_sort(x, steepness=steepness, distribution=distribution, network=network)
    peer = DiffSortNet(network, n, steepness=steepness, distribution=distribution)
    values, transposed = peer(x)
    torch.testing.assert_close(ours.values, values, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(ours.matrix(), transposed.mT, atol=2e-6, rtol=1e-5)  # its rows are elements
    weight = noise(5, n, n, seed=1).float()
    if distribution in ("gaussian", "logistic_phi"):
        return  # its gradient of the normal distribution is too large by sqrt(2) / steepness²; ours is checked below
    (expected,) = torch.autograd.grad((transposed.mT * weight).sum(), x)
    (gradient,) = torch.autograd.grad((ours.matrix() * weight).sum(), x)
    torch.testing.assert_close(gradient, expected, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("n", [1, 2, 3, 5, 6, 8, 11])
def test_agrees_with_dense_layers(n: int, distribution: Distribution, network: Network) -> None:
    options = {"steepness": 2.0, "distribution": distribution}
    x, u = noise(3, n).requires_grad_(), noise(3, n, seed=1).requires_grad_()
    ours = relaxed_sort(x, network=network, **options)
    p, values = (torch.stack(t) for t in zip(*[dense(row, network, **options) for row in x], strict=True))
    torch.testing.assert_close(ours.values, values)
    torch.testing.assert_close(ours.matrix(), p)
    torch.testing.assert_close(ours.apply(x), ours.values)  # P x = sorted(x): not the transposed convention
    torch.testing.assert_close(ours.apply(u), (p @ u[..., None])[..., 0])
    torch.testing.assert_close(ours.adjoint(u), (p.mT @ u[..., None])[..., 0])
    weight = noise(3, n, seed=2)
    for out, expected in ((ours.adjoint(u), p.mT @ u[..., None]), (ours.values, values[..., None])):
        expected = torch.autograd.grad((expected[..., 0] * weight).sum(), (x, u), retain_graph=True, allow_unused=True)
        got = torch.autograd.grad((out * weight).sum(), (x, u), retain_graph=True, allow_unused=True)
        for a, b in zip(got, expected, strict=True):
            if a is not None:
                torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_gradients(distribution: Distribution, network: Network) -> None:
    x, u = noise(2, 3).requires_grad_(), noise(2, 3, 2, seed=1).requires_grad_()

    def everything(x: Tensor, u: Tensor) -> tuple[Tensor, ...]:
        order = relaxed_sort(x, steepness=1.5, distribution=distribution, network=network)
        return order.values, order.apply(u), order.adjoint(u), order.matrix()

    assert torch.autograd.gradcheck(everything, (x, u))


@settings(max_examples=60)
@given(
    st.lists(st.floats(-100, 100), min_size=1, max_size=13),
    st.sampled_from(DISTRIBUTIONS),
    st.sampled_from(NETWORKS),
    st.floats(0.01, 100),
)
def test_doubly_stochastic_and_between_the_extremes(
    entries: list[float], distribution: Distribution, network: Network, steepness: float
) -> None:
    x = torch.tensor(entries, dtype=D64)
    order = relaxed_sort(x, steepness=steepness, distribution=distribution, network=network)
    p = order.matrix()
    assert (p >= 0).all()
    torch.testing.assert_close(p.sum(0), torch.ones_like(x))
    torch.testing.assert_close(p.sum(1), torch.ones_like(x))
    torch.testing.assert_close(order.values.sum(), x.sum(), atol=1e-9, rtol=1e-9)
    assert order.values.min() >= x.min() - 1e-9
    assert order.values.max() <= x.max() + 1e-9


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_becomes_the_permutation_when_steep(distribution: Distribution, network: Network) -> None:
    x = torch.tensor([[3.0, 1.0, 2.0, 5.0, 4.0], [1.0, 2.0, 5.0, 3.0, 4.0]], dtype=D64)  # neither is symmetric
    order = relaxed_sort(x, steepness=1e9, distribution=distribution, network=network)
    ranks = x.argsort(-1)
    hard = torch.nn.functional.one_hot(ranks, 5).to(D64)
    torch.testing.assert_close(order.matrix(), hard, atol=1e-6, rtol=0)
    torch.testing.assert_close(order.values, x.sort(-1).values, atol=1e-6, rtol=0)
    lowest = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0], dtype=D64).expand(2, 5)
    expected = torch.tensor([[0.0, 1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0, 0.0]], dtype=D64)
    torch.testing.assert_close(order.adjoint(lowest), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("distribution", ["cauchy", "reciprocal", "optimal"])
def test_monotonic_distributions_never_pull_the_wrong_way(distribution: Distribution) -> None:
    x = noise(200, 2).requires_grad_()
    for position in (0, 1):
        values = relaxed_sort(x, steepness=2.0, distribution=distribution).values[:, position]
        (gradient,) = torch.autograd.grad(values.sum(), x)
        assert (gradient >= -1e-12).all()


def test_leading_dimensions_and_broadcasting() -> None:
    x, u = noise(2, 3, 5), noise(2, 3, 5, 4, seed=1)
    order = relaxed_sort(x)
    one = relaxed_sort(x[1, 2])
    torch.testing.assert_close(order.matrix()[1, 2], one.matrix())
    torch.testing.assert_close(order.apply(u)[1, 2], one.apply(u[1, 2]))
    torch.testing.assert_close(order.adjoint(u[..., 0])[1, 2], one.adjoint(u[1, 2, :, 0]))
    torch.testing.assert_close(order.apply(u[:1, :1])[1, 2], one.apply(u[0, 0]))
    wider = relaxed_sort(x[:, :1])  # and the other way round: the vectors bring more problems
    torch.testing.assert_close(wider.adjoint(u)[1, 2], relaxed_sort(x[1, 0]).adjoint(u[1, 2]))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_ties_infinities_and_huge_entries_stay_finite(distribution: Distribution, network: Network) -> None:
    rows = [[1.0, 1.0, 1.0], [math.inf, 0.0, -math.inf], [3e38, -3e38, 1e-38], [0.0, 0.0, 0.0], [-math.inf] * 3]
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        x = torch.tensor(rows, dtype=dtype).requires_grad_()
        order = relaxed_sort(x, distribution=distribution, network=network)
        total = (
            order.values.float().clamp(-1, 1).sum() + order.adjoint(torch.ones_like(x) * x.new_tensor([1, 0, 0])).sum()
        )
        (gradient,) = torch.autograd.grad(total, x)
        for tensor in (order.values, order.matrix(), gradient):
            assert tensor.isfinite().all()
            assert tensor.dtype == dtype
    flat = relaxed_sort(torch.zeros(4, dtype=D64), distribution=distribution, network="bitonic").matrix()
    torch.testing.assert_close(flat, torch.full((4, 4), 0.25, dtype=D64))  # a tie tells nothing


def test_one_element_is_sorted() -> None:
    for network in NETWORKS:
        x = torch.tensor([[2.0]], requires_grad=True)
        order = relaxed_sort(x, network=network)
        assert order.matrix().tolist() == [[[1.0]]]
        assert torch.autograd.grad(order.values.sum(), x)[0].item() == 1.0


def test_bfloat16_is_computed_in_float32() -> None:
    x = noise(4, 9).bfloat16()
    torch.testing.assert_close(relaxed_sort(x).values, relaxed_sort(x.float()).values.bfloat16())
    torch.testing.assert_close(relaxed_sort(x).matrix(), relaxed_sort(x.float()).matrix().bfloat16())
    assert relaxed_sort(x).apply(noise(4, 9)).dtype == D64


def test_input_is_not_written_to() -> None:
    x, u = noise(3, 8), noise(3, 8, seed=1)
    before = x.clone(), u.clone()
    for network in NETWORKS:
        order = relaxed_sort(x, network=network)
        order.apply(u), order.adjoint(u), order.matrix()
    assert torch.equal(x, before[0])
    assert torch.equal(u, before[1])


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own, while it traces
@pytest.mark.parametrize("network", NETWORKS)
def test_compiles_whole(network: Network) -> None:
    def lowest(x: Tensor) -> Tensor:
        return relaxed_sort(x, network=network).adjoint(x).square().sum()

    torch._dynamo.reset()
    x = noise(2, 3).requires_grad_()
    expected, got = lowest(x), torch.compile(lowest, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(torch.autograd.grad(got, x), torch.autograd.grad(expected, x))


def test_second_derivatives_are_refused_not_wrong() -> None:
    x = noise(4).requires_grad_()
    (gradient,) = torch.autograd.grad(relaxed_sort(x).values.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="a relaxed sort is differentiable once"):
        gradient.sum().backward()
    u = noise(4, seed=1).requires_grad_()
    (gradient,) = torch.autograd.grad(relaxed_sort(x).apply(u).square().sum(), u, create_graph=True)
    with pytest.raises(RuntimeError, match="a relaxed sort is differentiable once"):
        gradient.sum().backward()


@pytest.mark.parametrize("network", NETWORKS)
def test_transforms_of_functions_nest(network: Network) -> None:
    """vmap of grad, grad of vmap, and two vmaps, of which each maps over one argument alone."""

    def lowest(x: Tensor, u: Tensor) -> Tensor:
        return relaxed_sort(x, network=network).adjoint(u).square().sum()

    x, u = noise(3, 5), noise(2, 5, seed=1)
    expected = torch.stack([torch.stack([lowest(a, b) for b in u]) for a in x])
    pairs = torch.func.vmap(torch.func.vmap(lowest, (None, 0)), (0, None))
    torch.testing.assert_close(pairs(x, u), expected)
    for at, leaf in enumerate((x.clone().requires_grad_(), u.clone().requires_grad_())):
        total = lambda *args: pairs(*args).sum()  # noqa: E731
        by_hand = [lowest(a, b) for a in (leaf if at == 0 else x) for b in (leaf if at == 1 else u)]
        (wanted,) = torch.autograd.grad(torch.stack(by_hand).sum(), leaf)
        torch.testing.assert_close(torch.func.grad(total, argnums=at)(x, u), wanted)
        each = torch.func.vmap(torch.func.vmap(torch.func.grad(lowest, argnums=at), (None, 0)), (0, None))(x, u)
        torch.testing.assert_close(each.sum(1 - at), wanted)


def test_a_fixed_relaxation_keeps_nothing_for_its_gradient() -> None:
    """α that needs no gradient costs no differences, also with gradients in what is sorted by it."""
    kept = []
    order, u = relaxed_sort(noise(64)), noise(64, seed=1).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        result = order.apply(u).square().sum()
    assert sum(kept) < 2 * 64 * 32 + 64 * 2
    torch.testing.assert_close(torch.autograd.grad(result, u)[0], 2 * order.adjoint(order.apply(u.detach())))


def test_memory_is_linear_in_layers() -> None:
    """n = 256, 64 problems: one n × n matrix per layer would take 4 GB."""
    kept = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.untyped_storage().nbytes()
        return tensor

    x = torch.randn(64, 256, requires_grad=True, generator=torch.Generator().manual_seed(0))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        order = relaxed_sort(x)
        loss = order.adjoint(torch.arange(256.0).expand(64, 256)).square().sum() + order.values.sum()
    assert kept < 100e6
    with torch.profiler.profile(profile_memory=True) as profile:
        loss.backward()
        (relaxed_sort(x).adjoint(torch.ones_like(x))).sum().backward()
    live = np.cumsum([e.nbytes() for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"])
    assert live.max() + kept < 500e6


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: relaxed_sort(torch.arange(3)), TypeError, "input must be floating point, got torch.int64"),
        (lambda: relaxed_sort(torch.ones(2, 0)), ValueError, r"input must have shape .* got \(2, 0\)"),
        (lambda: relaxed_sort(torch.tensor(1.0)), ValueError, r"input must have shape .* got \(\)"),
        (lambda: relaxed_sort(torch.ones(3), steepness=0.0), ValueError, "steepness must be positive .* got 0.0"),
        (lambda: relaxed_sort(torch.ones(3), steepness=-1.0), ValueError, "steepness must be positive .* got -1.0"),
        (lambda: relaxed_sort(torch.ones(3), distribution="normal"), ValueError, "one of cauchy, .* got 'normal'"),
        (lambda: relaxed_sort(torch.ones(3), network="bubble"), ValueError, "one of odd_even, bitonic, got 'bubble'"),
        (lambda: relaxed_sort(torch.ones(3), art_lambda=1.0), ValueError, r"art_lambda must lie in \[0, 1\), got 1.0"),
        (
            lambda: relaxed_sort(torch.ones(3)).apply(torch.ones(4)),
            ValueError,
            r"x must have shape \(3,\) .* got \(4,\)",
        ),
        (
            lambda: relaxed_sort(torch.ones(3)).adjoint(torch.ones(4, 2)),
            ValueError,
            r"x must have shape .* got \(4, 2\)",
        ),
        (lambda: relaxed_sort(torch.ones(2, 3)).apply(torch.ones(3)), ValueError, r"x must have shape \(2, 3\)"),
        (lambda: relaxed_sort(torch.ones(2, 3)).apply(torch.ones(4, 3)), ValueError, r"must broadcast with \(2,\)"),
        (lambda: relaxed_sort(torch.ones(3)).apply(torch.arange(3)), TypeError, "x must be floating point"),
        (lambda: order_probability(torch.arange(3)), TypeError, "difference must be floating point"),
        (lambda: order_probability(torch.ones(3), steepness=math.inf), ValueError, "positive and finite, got inf"),
        (lambda: order_probability(torch.ones(3), distribution="x"), ValueError, "distribution must be one of cauchy"),
        (lambda: sorting_network(0), ValueError, "n must be at least 1, got 0"),
        (lambda: sorting_network(4, "bubble"), ValueError, "kind must be one of odd_even, bitonic, got 'bubble'"),
    ],
)
def test_names_the_bad_argument(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()  # type: ignore[operator]
