"""Sharpness in closed form and by hand; the dominant eigenvalue against NumPy, SciPy and the whole Hessian."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, eigsh
from tests.search.self_distillation.networks import Classifier, Supernet, filled, random, seeded
from tests.search.self_distillation.test_teachers import assert_same, state_of
from torch import Tensor, nn
from torch.autograd.functional import hessian
from torch.func import functional_call
from torch.nn import functional as F

from throughline.search.self_distillation import dominant_eigenvalue, sharpness
from throughline.search.supernet import arch_parameters, batch_statistics, choices, weight_parameters

BATCH = random(16, 4), torch.arange(16) % 3


class Quadratic(nn.Module):
    """x in two parameters, and one that has nothing to say."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(x[:2].clone()), nn.Parameter(x[2:].clone())
        self.idle = nn.Parameter(torch.ones(2, dtype=torch.float64))


def quadratic(model: nn.Module, matrix: Tensor) -> Tensor:
    x = torch.cat([model.a, model.b])
    return x @ matrix @ x / 2  # type: ignore[no-any-return]


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def symmetric(seed: int, size: int = 5) -> Tensor:
    matrix = random(size, size, seed=seed)
    return (matrix + matrix.T) / 2


# ---- sharpness ----


@settings(max_examples=25)
@given(st.integers(0, 500), st.floats(1e-3, 10.0))
def test_sharpness_of_a_quadratic_in_closed_form(seed: int, rho: float) -> None:
    matrix, x = symmetric(seed), random(5, seed=seed + 1)
    gradient = matrix @ x
    e = rho * gradient / gradient.norm()
    expected = e @ gradient + e @ matrix @ e / 2
    torch.testing.assert_close(sharpness(Quadratic(x), quadratic, matrix, rho=rho), expected)


@pytest.mark.parametrize("chosen", ["weights", "alphas", "one"])
def test_sharpness_by_moving_a_copy(chosen: str) -> None:
    model, twin = filled(Supernet()).train(), filled(Supernet()).train()
    pick = {
        "weights": weight_parameters,
        "alphas": arch_parameters,
        "one": lambda net: [net.last.ops["linear"].weight],
    }[chosen]
    flat = torch.autograd.grad(cross_entropy(twin, BATCH), pick(twin))
    norm = sum(g.square().sum() for g in flat) ** 0.5
    before = cross_entropy(twin, BATCH).item()
    with torch.no_grad():
        for p, g in zip(pick(twin), flat, strict=True):
            p += 0.05 * g / norm
    expected = cross_entropy(twin, BATCH).item() - before
    found = sharpness(model, cross_entropy, BATCH, params=None if chosen == "weights" else pick(model))
    assert found.item() == pytest.approx(expected, rel=1e-8)
    assert not found.requires_grad
    assert expected > 1e-4


def test_dropout_is_off_and_frozen_weights_stay() -> None:
    model, twin = filled(Classifier()).train(), filled(Classifier()).train()
    model.head.requires_grad_(False)
    twin.drop.p = 0.0
    chosen = [p for name, p in twin.named_parameters() if "head" not in name]
    assert sharpness(model, cross_entropy, BATCH) == sharpness(model, cross_entropy, BATCH)
    torch.testing.assert_close(
        sharpness(model, cross_entropy, BATCH), sharpness(twin, cross_entropy, BATCH, params=chosen)
    )


def test_a_stationary_point_is_flat() -> None:
    assert sharpness(Quadratic(torch.zeros(5, dtype=torch.float64)), quadratic, symmetric(0)).item() == 0


# ---- the dominant eigenvalue ----


@pytest.mark.parametrize("seed", [0, 1, 3])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_dominant_eigenvalue_of_a_matrix(seed: int, sign: int) -> None:
    matrix = sign * symmetric(seed)
    model = Quadratic(random(5))
    found = dominant_eigenvalue(
        model, quadratic, matrix, params=[model.b, model.a, model.idle], iterations=200, generator=seeded()
    )
    eigenvalues = np.linalg.eigvalsh(matrix.numpy())
    assert found.item() == pytest.approx(eigenvalues[np.abs(eigenvalues).argmax()], rel=1e-5)


def test_the_dominant_eigenvalue_of_alphas_by_the_whole_hessian() -> None:
    model = filled(Supernet()).train()
    alphas = {name: p for name, p in model.named_parameters() if name.endswith("alpha")}
    assert len(alphas) == len(arch_parameters(model)) == 2
    names = list(alphas)

    def at(flat: Tensor) -> Tensor:
        parts = dict(zip(names, flat.split([3, 3]), strict=True))
        return F.cross_entropy(functional_call(model, parts, (BATCH[0],)), BATCH[1])

    with batch_statistics(model):
        matrix = hessian(at, torch.cat([p.detach() for p in alphas.values()])).numpy()
    values = np.linalg.eigvalsh(matrix)
    expected = values[np.abs(values).argmax()]
    found = dominant_eigenvalue(model, cross_entropy, BATCH, iterations=300, generator=seeded())
    assert found.item() == pytest.approx(expected, rel=1e-6)
    (scipy,) = eigsh(LinearOperator((6, 6), matvec=lambda v: matrix @ v, dtype=float), k=1, which="LM")[0]
    assert found.item() == pytest.approx(scipy, rel=1e-6)


def test_more_iterations_come_nearer_and_the_start_is_drawn() -> None:
    matrix = torch.diag(torch.tensor([3.0, 2.5, 1.0, 0.5, -1.0], dtype=torch.float64))
    model = Quadratic(random(5))
    found = {
        n: dominant_eigenvalue(model, quadratic, matrix, params=[model.a, model.b], iterations=n, generator=seeded(1))
        for n in (1, 5, 50)
    }
    assert found[1] < found[5] < found[50]
    assert found[50].item() == pytest.approx(3.0, abs=1e-6)
    starts = {
        seed: dominant_eigenvalue(
            model, quadratic, matrix, params=[model.a, model.b], iterations=1, generator=seeded(seed)
        ).item()
        for seed in (1, 2)
    }
    assert starts[1] == found[1].item() != starts[2]


def test_a_linear_loss_has_no_curvature() -> None:
    model = Quadratic(random(5))
    found = dominant_eigenvalue(model, lambda m, _: m.a.sum() + m.b.sum(), None, params=[model.a, model.b])
    assert found.item() == 0


def test_attention_is_differentiated_twice() -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(4, 2, batch_first=True).double()
    x = random(2, 3, 4)
    loss = lambda m, x: m(x, x, x, need_weights=False)[0].square().mean()  # noqa: E731
    found = dominant_eigenvalue(layer, loss, x, params=[layer.in_proj_bias], iterations=100, generator=seeded())
    plain = lambda bias: functional_call(layer, {"in_proj_bias": bias}, (x, x, x))[0].square().mean()  # noqa: E731
    matrix = hessian(plain, layer.in_proj_bias.detach())  # with its weights, attention is in plain operations
    values = np.linalg.eigvalsh(matrix.numpy())
    assert found.item() == pytest.approx(values[np.abs(values).argmax()], rel=1e-4)


# ---- both ----

MEASURES = {
    "sharpness": lambda model, **options: sharpness(model, cross_entropy, BATCH, **options),
    "dominant": lambda model, **options: dominant_eigenvalue(
        model, cross_entropy, BATCH, generator=seeded(), iterations=3, **options
    ),
}


@pytest.mark.parametrize("name", MEASURES)
def test_the_model_is_left_bit_for_bit(name: str) -> None:
    model = filled(Supernet()).train()
    model.norm.eval()
    choices(model)["last.choice"].select("square")
    state, modes, chance = state_of(model), [m.training for m in model.modules()], torch.get_rng_state()
    output = model(BATCH[0]).sum()
    with torch.no_grad():
        value = MEASURES[name](model)
    assert value.isfinite()
    assert_same(state, state_of(model))
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), chance)
    output.backward()  # nothing that it needs has been written to
    assert model.head.weight.grad is not None


@pytest.mark.parametrize("name", MEASURES)
def test_batch_norm_uses_the_batch(name: str) -> None:
    model = filled(Supernet()).eval()
    value = MEASURES[name](model)
    with torch.no_grad():
        model.norm.running_mean.add_(3)
    assert torch.equal(MEASURES[name](model), value)
    assert torch.equal(MEASURES[name](copy.deepcopy(model).train()), value)


@pytest.mark.parametrize("name", MEASURES)
def test_names_bad_parameters(name: str) -> None:
    measure, model = MEASURES[name], filled(Supernet())
    with pytest.raises(ValueError, match=r"params must be at least one parameter that requires a gradient, got none"):
        measure(model, params=[])
    with pytest.raises(ValueError, match=r"params must be parameters of the model, got another tensor"):
        measure(model, params=[nn.Parameter(torch.ones(2))])
    model.head.bias.requires_grad_(False)
    with pytest.raises(ValueError, match=r"params must require a gradient, got 'head.bias', which does not"):
        measure(model, params=[model.head.weight, model.head.bias])
    choices(model)["last.choice"].select("skip")
    with pytest.raises(ValueError, match=r"params must have an effect on the loss"):
        measure(model, params=[model.last.ops["linear"].weight])
    with pytest.raises(ValueError, match=r"params must have an effect on the loss"):
        sharpness(model, lambda model, batch: torch.tensor(1.0), None)


def test_names_the_rest() -> None:
    model = Quadratic(random(5))
    for rho in (0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=rf"rho must be positive and finite, got {rho}"):
            sharpness(model, quadratic, symmetric(0), rho=rho)
    with pytest.raises(ValueError, match=r"iterations must be at least 1, got 0"):
        dominant_eigenvalue(model, quadratic, symmetric(0), params=[model.a], iterations=0)
    with pytest.raises(TypeError, match=r"iterations must be an integer, got 2.5"):
        dominant_eigenvalue(model, quadratic, symmetric(0), params=[model.a], iterations=2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"params must be at least one .* got none"):  # it has no architecture
        dominant_eigenvalue(model, quadratic, symmetric(0))
    for measure in (sharpness, dominant_eigenvalue):
        with pytest.raises(TypeError, match=r"the result of loss must be a tensor, got float"):
            measure(model, lambda model, batch: 1.0, None, params=[model.a])  # type: ignore[arg-type, return-value]
        with pytest.raises(ValueError, match=r"loss must return a scalar, got shape \(2,\)"):
            measure(model, lambda model, batch: model.a, None, params=[model.a])  # type: ignore[arg-type, return-value]
