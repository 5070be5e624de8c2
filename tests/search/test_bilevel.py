"""BOREP against the algorithm in NumPy with derivatives by hand, closed forms, limits, and every promised error."""

import copy
import io
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from throughline.search import bilevel
from throughline.search.bilevel import BOREP, BilevelStep

DRAW = np.random.default_rng(0)
A = DRAW.standard_normal((3, 3))
A = A @ A.T / 3 + np.eye(3)  # curvature of the lower level
B, C = DRAW.standard_normal((2, 3, 4))
DTYPE: dict[str, Any] = {"dtype": torch.float64}


# G(x, y; ζ) = (1 + |x|²)/2 yᵀAy − yᵀBx − ζᵀy,  F(x, y; ξ) = |y − ξ|²/2 + yᵀCx + Σ cos x, batches of three numbers each


def lower_loss(x: Tensor, y: Tensor, batch: Tensor) -> Tensor:
    a, b = (torch.as_tensor(m) for m in (A, B))
    return (1 + x @ x) / 2 * (y @ a @ y) - y @ b @ x - batch @ y


def upper_loss(x: Tensor, y: Tensor, batch: Tensor) -> Tensor:
    return (y - batch).square().sum() / 2 + y @ torch.as_tensor(C) @ x + x.cos().sum()


def lower_y(x: np.ndarray, y: np.ndarray, batch: np.ndarray) -> np.ndarray:
    return (1 + x @ x) * A @ y - B @ x - batch


def numpy_refine(
    x: np.ndarray, y: np.ndarray, batches: Iterator[np.ndarray], steps: int, epochs: int, rate: float
) -> np.ndarray:
    for epoch in range(epochs):
        visited = []
        for _ in range(steps * 2**epoch):
            y = y - rate / 2**epoch * lower_y(x, y, next(batches))
            visited.append(y)
        y = np.mean(visited, 0)
    return y


def numpy_run(
    x: np.ndarray, y: np.ndarray, upper: Iterator[np.ndarray], lower: Iterator[np.ndarray], steps: int, **o: Any
) -> tuple[np.ndarray, ...]:
    """Steps 1 to 4 of the algorithm, with derivatives by hand."""
    z, m, norms = np.zeros(3), np.zeros(4), []
    for k in range(steps):
        if k % o["period"] == 0:
            for _ in range(o["lower_steps"]):
                y = y - o["lower_lr"] * lower_y(x, y, next(lower))
        next(lower)  # its gradient is constant in ζ where it is differentiated once more
        xi = next(upper)
        z = z - o["adjoint_lr"] * ((1 + x @ x) * A @ z - (y - xi + C @ x))
        mixed = 2 * x * (y @ A @ z) - B.T @ z
        h = C.T @ y - np.sin(x) - mixed
        m = o["momentum"] * m + (1 - o["momentum"]) * h
        x = x - o["lr"] * m / (np.linalg.norm(m) + 1e-10 if o["normalize"] else 1)
        norms.append((np.linalg.norm(h), np.linalg.norm(m)))
    return x, y, z, m, np.array(norms)


def noise(seed: int) -> Iterator[np.ndarray]:
    draw = np.random.default_rng(seed)
    while True:
        yield 0.1 * draw.standard_normal(3)


def tensors(seed: int) -> Iterator[Tensor]:
    return map(torch.from_numpy, noise(seed))


START_X, START_Y = DRAW.standard_normal(4), DRAW.standard_normal(3)
OPTIONS = {"lr": 0.07, "lower_lr": 0.05, "adjoint_lr": 0.04, "momentum": 0.8}
HOT = {"lr": 0.02, "lower_lr": 0.05, "adjoint_lr": 0.04, "momentum": 0.5}


def start(**options: Any) -> BOREP:
    x, y = torch.tensor(START_X), torch.tensor(START_Y)
    return BOREP(upper_loss, lower_loss, x, y, **{**OPTIONS, **options})


def close(found: Tensor, wanted: Any) -> None:
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-9, atol=1e-12)


# ---- the algorithm ----


@pytest.mark.parametrize(
    ("options", "refined"),
    [
        ({**OPTIONS, "period": 2, "lower_steps": 3, "normalize": True}, True),
        ({**OPTIONS, "period": 3, "lower_steps": 1, "normalize": True}, False),
        ({**HOT, "period": 1, "lower_steps": 1, "normalize": False}, False),  # MA-SOBA
    ],
    ids=["bo-rep", "period 3", "ma-soba"],
)
def test_is_the_algorithm_written_out(options: dict[str, Any], refined: bool) -> None:
    optimizer, (upper, lower) = start(**options), (tensors(1), tensors(2))
    theirs_upper, theirs_lower, y = noise(1), noise(2), START_Y
    if refined:
        optimizer.refine(lower, steps=5, epochs=3)
        y = numpy_refine(START_X, y, theirs_lower, 5, 3, options["lower_lr"])
        close(optimizer.lower, y)
    infos = [optimizer.step(upper, lower) for _ in range(11)]
    x, y, z, m, norms = numpy_run(START_X, y, theirs_upper, theirs_lower, 11, **options)
    close(optimizer.upper, x)
    close(optimizer.lower, y)
    close(optimizer.adjoint, z)
    close(optimizer.momentum_buffer, m)
    close(torch.stack([torch.stack([i.hypergradient_norm, i.momentum_norm]) for i in infos]), norms)


def test_trees_of_any_structure_give_what_one_vector_gives() -> None:
    """One norm over all of x, not one for each tensor."""
    flat = start()
    x = {"a": torch.tensor(START_X[:1]), "b": (torch.tensor(START_X[1:3]).view(2, 1), [torch.tensor(START_X[3])])}
    y = [torch.tensor(START_Y[:2]), {"c": torch.tensor(START_Y[2:])}]

    def joined(tree: Any) -> Tensor:
        return torch.cat([leaf.flatten() for leaf in torch.utils._pytree.tree_leaves(tree)])

    nested = BOREP(
        lambda x, y, batch: upper_loss(joined(x), joined(y), batch),
        lambda x, y, batch: lower_loss(joined(x), joined(y), batch),
        x,
        y,
        **OPTIONS,
    )
    for optimizer in (flat, nested):
        upper, lower = tensors(1), tensors(2)
        optimizer.refine(lower, steps=4)
        for _ in range(5):
            optimizer.step(upper, lower)
    for name in ("upper", "lower", "adjoint", "momentum_buffer"):
        close(joined(getattr(nested, name)), getattr(flat, name))
    assert nested.upper is x
    assert nested.momentum_buffer["b"][0].shape == (2, 1)
    assert nested.adjoint[1]["c"].shape == (1,)


def test_batches_are_drawn_in_the_order_that_is_promised() -> None:
    drawn: list[str] = []

    def watched(name: str, seed: int) -> Iterator[Tensor]:
        for batch in tensors(seed):
            drawn.append(name)
            yield batch

    optimizer = start(period=3, lower_steps=2)
    upper, lower = watched("u", 1), watched("l", 2)
    for expected in ("lllu", "lu", "lu", "lllu", "lu"):
        drawn.clear()
        optimizer.step(upper, lower)
        assert "".join(drawn) == expected
    drawn.clear()
    optimizer.refine(lower, steps=3, epochs=2)
    assert "".join(drawn) == "l" * (3 + 6)
    one = itertools.repeat(torch.zeros(3, **DTYPE))
    optimizer.step(one, one)  # a single iterator serves both


def test_losses_are_evaluated_once_for_all_products() -> None:
    calls = {"upper": 0, "lower": 0}

    def counted(name: str, loss: Any) -> Any:
        def evaluate(*args: Any) -> Tensor:
            calls[name] += 1
            result: Tensor = loss(*args)
            return result

        return evaluate

    optimizer = start(period=2, lower_steps=3)
    optimizer.upper_loss, optimizer.lower_loss = counted("upper", upper_loss), counted("lower", lower_loss)
    for expected in ({"upper": 1, "lower": 4}, {"upper": 1, "lower": 1}):
        calls |= {"upper": 0, "lower": 0}
        optimizer.step(tensors(1), tensors(2))
        assert calls == expected


def test_losses_seen_are_those_before_x_moves() -> None:
    optimizer = start()
    info = optimizer.step(tensors(1), tensors(2))
    x, y = torch.tensor(START_X), optimizer.lower  # y has had its three steps
    drawn = list(itertools.islice(tensors(2), 4))
    close(info.upper_loss, upper_loss(x, y, next(tensors(1))))
    close(info.lower_loss, lower_loss(x, y, drawn[3]))
    assert isinstance(info, BilevelStep)
    for value in info:
        assert value.ndim == 0
        assert not value.requires_grad


# ---- closed forms ----


def test_the_hypergradient_is_that_of_the_implicit_function() -> None:
    """At y* and u* it is ∇Φ, here by finite differences of Φ itself."""
    zero = np.zeros(3)

    def phi(x: np.ndarray) -> float:
        y = np.linalg.solve((1 + x @ x) * A, B @ x)
        return float(((y - zero) ** 2).sum() / 2 + y @ C @ x + np.cos(x).sum())

    gradient = np.array([(phi(START_X + e) - phi(START_X - e)) / 2e-6 for e in 1e-6 * np.eye(4)])
    hessian = (1 + START_X @ START_X) * A
    y = np.linalg.solve(hessian, B @ START_X)
    optimizer = start(momentum=0.0, lower_lr=1e-300)
    state = optimizer.state_dict()
    state |= {"lower": torch.tensor(y), "adjoint": torch.tensor(np.linalg.solve(hessian, y + C @ START_X))}
    optimizer.load_state_dict(state)
    batches = itertools.repeat(torch.zeros(3, **DTYPE))
    optimizer.step(batches, batches)
    np.testing.assert_allclose(optimizer.momentum_buffer.numpy(), gradient, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("normalize", [True, False])
def test_reaches_the_solution_of_a_quadratic(normalize: bool) -> None:
    """y*(x) = M⁻¹x and F = |y − t|²/2: the solution is x = Mt."""
    curvature, target = torch.tensor([0.5, 1.0, 2.0], **DTYPE), torch.tensor([1.0, -2.0, 0.5], **DTYPE)
    x, y = (torch.zeros(3, **DTYPE) for _ in range(2))
    optimizer = BOREP(
        lambda x, y, _: (y - target).square().sum() / 2,
        lambda x, y, _: (curvature * y * y).sum() / 2 - x @ y,
        x,
        y,
        lr=0.01,
        lower_lr=0.5,
        adjoint_lr=0.5,
        lower_steps=2,
        normalize=normalize,
    )
    batches = itertools.repeat(None)
    optimizer.refine(batches, steps=10)
    for step in range(600):
        optimizer.lr = (0.01 if step < 400 else 1e-3) if normalize else 0.05
        optimizer.step(batches, batches)
    torch.testing.assert_close(x, curvature * target, atol=0.01, rtol=0)


def test_refinement_with_many_epochs_solves_the_lower_level() -> None:
    optimizer = start(lower_lr=0.3 / (1 + START_X @ START_X))
    optimizer.refine(tensors(3), steps=50, epochs=5)
    solution = np.linalg.solve((1 + START_X @ START_X) * A, B @ START_X)
    np.testing.assert_allclose(optimizer.lower.numpy(), solution, atol=0.01)
    np.testing.assert_array_equal(optimizer.upper.numpy(), START_X)


# ---- invariants and limits ----


@settings(max_examples=25)
@given(st.floats(-3, 6), st.integers(0, 100), st.floats(1e-4, 1.0))  # far above the 1e-10 beside the norm
def test_steps_have_one_length_and_know_no_scale_of_the_upper_loss(power: float, seed: int, lr: float) -> None:
    scaled, plain = start(lr=lr), start(lr=lr)
    scaled.upper_loss = lambda x, y, batch: 10**power * upper_loss(x, y, batch)
    for _ in range(3):
        before = plain.upper.clone()
        for optimizer in (scaled, plain):
            info = optimizer.step(tensors(seed), tensors(seed + 1))
        assert (plain.upper - before).norm().item() == pytest.approx(lr, rel=1e-6)
        assert info.momentum_norm.item() == pytest.approx(plain.momentum_buffer.norm().item())
    torch.testing.assert_close(scaled.upper, plain.upper, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [1e25, 1e-25])
def test_gradients_whose_squares_leave_float32_are_followed_all_the_same(scale: float) -> None:
    x, y = torch.zeros(4), torch.zeros(4)
    far = torch.tensor([3.0, 4.0, 0.0, 0.0])
    optimizer = BOREP(
        lambda x, y, _: scale * (-(far @ x) + 0 * y.sum()), lambda x, y, _: y.square().sum(), x, y, lr=0.5, momentum=0.0
    )
    info = optimizer.step(itertools.repeat(0), itertools.repeat(0))
    assert info.hypergradient_norm.item() == pytest.approx(5 * scale)
    wanted = 0.5 * far / 5 * (1 if scale > 1 else 5 * scale / (5 * scale + 1e-10))
    torch.testing.assert_close(x, wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_short_numbers_stay_short_and_their_norms_are_wide(dtype: torch.dtype) -> None:
    x, y = torch.zeros(1_000, dtype=dtype), torch.zeros(1_000, dtype=dtype)
    optimizer = BOREP(
        lambda x, y, _: -x.sum() + 0 * y.sum(), lambda x, y, _: y.square().sum(), x, y, lr=0.5, momentum=0.0
    )
    info = optimizer.step(itertools.repeat(0), itertools.repeat(0))
    assert info.hypergradient_norm.dtype == torch.float32
    assert info.hypergradient_norm.item() == pytest.approx(1_000**0.5)
    for tree in (optimizer.upper, optimizer.lower, optimizer.adjoint, optimizer.momentum_buffer):
        assert tree.dtype == dtype
    assert x[0].item() == pytest.approx(0.5 / 1_000**0.5, rel=0.01)


def test_a_zero_hypergradient_moves_nothing() -> None:
    x, y = torch.ones(2), torch.zeros(2)
    optimizer = BOREP(lambda x, y, _: y.square().sum(), lambda x, y, _: y.square().sum() + x.sum(), x, y)
    info = optimizer.step(itertools.repeat(0), itertools.repeat(0))
    assert info.momentum_norm == 0
    assert torch.equal(x, torch.ones(2))


def test_outer_parameters_that_nothing_depends_on_have_zero_gradients() -> None:
    x = {"used": torch.tensor(START_X), "idle": torch.ones(2, **DTYPE)}
    y = {"used": torch.tensor(START_Y), "idle": torch.ones(2, **DTYPE)}
    optimizer = BOREP(
        lambda x, y, b: upper_loss(x["used"], y["used"], b), lambda x, y, b: lower_loss(x["used"], y["used"], b), x, y
    )
    optimizer.step(tensors(1), tensors(2))
    for tree in (x, y):
        assert torch.equal(tree["idle"], torch.ones(2, **DTYPE))
    assert torch.equal(optimizer.momentum_buffer["idle"], torch.zeros(2, **DTYPE))
    assert torch.equal(optimizer.adjoint["idle"], torch.zeros(2, **DTYPE))
    neither = BOREP(lambda x, y, _: y.sum(), lambda x, y, _: y.square().sum(), torch.ones(2), torch.ones(2))
    assert neither.step(itertools.repeat(0), itertools.repeat(0)).hypergradient_norm == 0
    linear = BOREP(lambda x, y, _: y.sum(), lambda x, y, _: -y.sum(), torch.ones(2), torch.ones(2))
    linear.step(itertools.repeat(0), itertools.repeat(0))  # no curvature: the adjoint adds up gradients
    torch.testing.assert_close(linear.adjoint, torch.full((2,), 1e-2))


# ---- what it works on ----


def recurrent() -> tuple[nn.Module, nn.Module, Any]:
    torch.manual_seed(0)
    encoder, head = nn.RNN(3, 5, batch_first=True), nn.Linear(5, 2)

    def loss(x: Any, y: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
        hidden, _ = functional_call(encoder, x, (batch[0],))
        return F.cross_entropy(functional_call(head, y, (hidden[:, -1],)), batch[1])

    return encoder, head, loss


BATCH = torch.randn(8, 6, 3, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2


@pytest.mark.parametrize("requires_grad", [True, False])
@pytest.mark.parametrize("grad", [torch.enable_grad, torch.no_grad])
def test_trains_modules_whether_their_parameters_require_gradients_or_not(requires_grad: bool, grad: Any) -> None:
    encoder, head, loss = recurrent()
    for module in (encoder, head):
        module.requires_grad_(requires_grad)
    x, y = dict(encoder.named_parameters()), dict(head.named_parameters())

    def penalised(x: Any, y: Any, batch: Any) -> Tensor:
        return loss(x, y, batch) + sum(p.square().sum() for p in y.values())

    optimizer = BOREP(loss, penalised, x, y, lr=0.1, lower_lr=0.1, adjoint_lr=0.1)
    batches = itertools.repeat(BATCH)
    with grad():
        optimizer.refine(batches, steps=5)
        infos = [optimizer.step(batches, batches) for _ in range(60)]
    assert infos[-1].upper_loss < 0.7 * infos[0].upper_loss
    assert loss(x, y, BATCH).item() == pytest.approx(infos[-1].upper_loss.item(), rel=0.2)
    for module in (encoder, head):
        for p in module.parameters():
            assert p.requires_grad == requires_grad
            assert p.is_leaf
            assert p.grad is None


def test_on_cuda_the_lower_loss_is_differentiated_without_cudnn() -> None:
    class OnCuda:
        is_cuda = True

    with bilevel._twice_differentiable([OnCuda()]):
        assert not torch.backends.cudnn.enabled
    assert torch.backends.cudnn.enabled
    with bilevel._twice_differentiable([torch.zeros(2)]):
        assert torch.backends.cudnn.enabled


def test_attention_in_the_lower_parameters_is_differentiated_twice() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True, dropout=0.0)
    inputs, y = torch.randn(4, 5, 8), {name: p.detach().clone() for name, p in layer.named_parameters()}

    def upper(x: Tensor, y: Any, batch: Any) -> Tensor:
        return functional_call(layer, y, (inputs,)).square().mean()  # type: ignore[no-any-return]

    def lower(x: Tensor, y: Any, batch: Any) -> Tensor:
        return functional_call(layer, y, (inputs.flip(0),)).sin().mean() + x * sum(p.square().sum() for p in y.values())

    optimizer = BOREP(upper, lower, torch.tensor(0.1), y, lower_steps=1, lower_lr=1e-12, momentum=0.0)
    start = {name: p.clone() for name, p in y.items()}
    optimizer.step(itertools.repeat(None), itertools.repeat(None))
    z = {name: p * 1e-2 for name, p in torch.func.grad(lambda y: upper(torch.tensor(0.0), y, None))(start).items()}
    mixed = sum((2 * start[name] * z[name]).sum() for name in start)  # of x‖y‖², the only part with x in it
    torch.testing.assert_close(optimizer.momentum_buffer, -mixed)
    optimizer.step(itertools.repeat(None), itertools.repeat(None))
    assert all(p.isfinite().all() for p in optimizer.adjoint.values())


# ---- state ----


def test_a_stored_state_goes_on_bit_by_bit() -> None:
    optimizer, upper, lower = start(), tensors(1), tensors(2)
    for _ in range(3):  # an odd number: the period is in the state
        optimizer.step(upper, lower)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    kept = optimizer.state_dict()
    ahead = [next(upper) for _ in range(5)], [next(lower) for _ in range(20)]
    first = [optimizer.step(iter(ahead[0]), iter(ahead[1])) for _ in range(5)]
    file.seek(0)
    for state in (torch.load(file, weights_only=True), kept):  # the state is a copy, as it was
        other = start()
        given = other.upper
        other.load_state_dict(state)
        again = [other.step(iter(ahead[0]), iter(ahead[1])) for _ in range(5)]
        assert all(
            torch.equal(a, b) for one, two in zip(first, again, strict=True) for a, b in zip(one, two, strict=True)
        )
        assert other.upper is given
        for name in ("upper", "lower", "adjoint", "momentum_buffer"):
            assert torch.equal(getattr(other, name), getattr(optimizer, name))
        assert other.iteration == optimizer.iteration == 8


def test_refuses_a_state_of_something_else() -> None:
    optimizer = start()
    state = optimizer.state_dict()
    with pytest.raises(ValueError, match=r"state must be what state_dict returns, got one without adjoint"):
        optimizer.load_state_dict({name: value for name, value in state.items() if name != "adjoint"})
    with pytest.raises(
        ValueError, match=r"state\['lower'\] must have the shapes of the parameters, got \(2,\) for \(3,\)"
    ):
        optimizer.load_state_dict({**state, "upper": state["upper"] + 1, "lower": torch.zeros(2)})
    assert np.array_equal(optimizer.upper.numpy(), START_X)  # nothing before everything fits
    with pytest.raises(ValueError, match=r"state\['upper'\] must have the structure of the parameters"):
        optimizer.load_state_dict({**state, "upper": [state["upper"]]})


# ---- bad input ----


def snapshot(optimizer: BOREP) -> list[Any]:
    state = copy.deepcopy(optimizer.state_dict())
    return [state[name].tolist() if isinstance(state[name], Tensor) else state[name] for name in sorted(state)]


def test_a_hypergradient_that_is_not_finite_changes_nothing() -> None:
    optimizer = start(lower_steps=2)
    for _ in range(2):
        optimizer.step(tensors(1), tensors(2))
    before = snapshot(optimizer)
    for name in ("upper_loss", "lower_loss"):
        for bad in (torch.nan, torch.inf):
            broken = copy.copy(optimizer)
            plain = getattr(optimizer, name)
            setattr(broken, name, lambda x, y, b, plain=plain, bad=bad: plain(x, y, b) + bad * (x @ x) * (y @ y))
            with pytest.raises(FloatingPointError, match=r"hypergradient is not finite at step 2; .* as before it"):
                broken.step(tensors(1), tensors(2))
            assert snapshot(optimizer) == before  # the two lower steps, too, are undone
    optimizer.step(tensors(1), tensors(2))


def test_a_refinement_that_diverges_changes_nothing() -> None:
    optimizer = start(lower_lr=1e6)
    with pytest.raises(FloatingPointError, match=r"not finite after refinement: lower_lr=1000000\.0 is too large"):
        optimizer.refine(tensors(1), steps=100)
    assert np.array_equal(optimizer.lower.numpy(), START_Y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            ({name: rate}, rf"{name} must be positive and finite, got {rate}")
            for name in ("lr", "lower_lr", "adjoint_lr")
            for rate in (0, -1.0, float("inf"), float("nan"))
        ),
        *(({"momentum": share}, rf"momentum must be in \[0, 1\), got {share}") for share in (1, -0.1)),
        *(({name: 0}, rf"{name} must be at least 1, got 0") for name in ("period", "lower_steps")),
    ],
)
def test_names_the_bad_number(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        start(**options)


def test_names_the_bad_number_of_refine() -> None:
    for name in ("steps", "epochs"):
        with pytest.raises(ValueError, match=rf"{name} must be at least 1, got 0"):
            start().refine(tensors(1), **{name: 0})


def test_refuses_trees_of_anything_but_floating_point_tensors() -> None:
    good = torch.zeros(2)
    for error, tree, message in (
        (TypeError, {"n": torch.arange(3)}, "must be floating point, got torch.int64"),
        (TypeError, [1.0], "must be tensors or nested dicts, lists and tuples of them, got float"),
        (TypeError, [good, None], "must be tensors or nested .* got NoneType"),
        (ValueError, {}, "must hold at least one tensor, got an empty dict"),
    ):
        for name, pair in {"upper_params": (tree, good), "lower_params": (good, tree)}.items():
            with pytest.raises(error, match=f"{name} {message}"):
                BOREP(upper_loss, lower_loss, *pair)
    with pytest.raises(ValueError, match="must hold every tensor once, got one twice"):
        BOREP(upper_loss, lower_loss, [good], {"same": good})


@pytest.mark.parametrize("name", ["upper_loss", "lower_loss"])
@pytest.mark.parametrize(
    ("error", "loss", "message"),
    [
        (ValueError, lambda x, y, b: y, r"must return a scalar, got shape \(3,\)"),
        (ValueError, lambda x, y, b: y.sum()[None], r"must return a scalar, got shape \(1,\)"),
        (TypeError, lambda x, y, b: 1.0, r"must return a tensor, got float"),
        (ValueError, lambda x, y, b: torch.tensor(3), r"must depend on the inner parameters"),
        (ValueError, lambda x, y, b: x.sum(), r"must depend on the inner parameters, got a value that does not"),
        (ValueError, lambda x, y, b: torch.tensor(3.0), r"must depend on the inner parameters"),
    ],
)
def test_says_which_loss_is_wrong(name: str, error: type[Exception], loss: Any, message: str) -> None:
    optimizer = start()
    setattr(optimizer, name, loss)
    before = snapshot(optimizer)
    with pytest.raises(error, match=rf"{name} {message}"):
        optimizer.step(tensors(1), tensors(2))
    assert snapshot(optimizer) == before


def test_wants_iterators_that_do_not_end() -> None:
    optimizer = start()
    batch = torch.zeros(3, **DTYPE)
    before = snapshot(optimizer)
    with pytest.raises(
        TypeError, match=r"lower_batches must be an iterator, such as itertools.cycle\(loader\), got list"
    ):
        optimizer.step(iter([batch]), [batch] * 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"lower_batches must not end, .* and has run out"):
        optimizer.step(iter([batch]), iter([batch] * 3))
    with pytest.raises(ValueError, match=r"upper_batches must not end, .* and has run out"):
        optimizer.step(iter([]), iter([batch] * 4))
    assert snapshot(optimizer) == before
