"""The network against torch's own encoder behind a dense mask, its bars against integrals, and what it must not see."""

import builtins
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_model, save_model
from scipy.integrate import quad
from torch import Tensor

import throughline.search.meta_bo as meta_bo
from throughline.search.meta_bo import (
    AcquisitionOutput,
    BarDistribution,
    NeuralAcquisitionProcess,
    load_policy,
    save_policy,
)

SMALL = {"d_model": 16, "num_layers": 2, "nhead": 4, "dim_feedforward": 24, "num_bars": 12}


def policy(in_features: int = 3, seed: int = 0, **changes: object) -> NeuralAcquisitionProcess:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NeuralAcquisitionProcess(in_features, **{**SMALL, **changes}).double().eval()  # type: ignore[arg-type]


def problem(n: int, m: int = 9, d: int = 3, batch: int = 4, seed: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)

    def uniform(*size: int) -> Tensor:
        return torch.rand(size, generator=draw, dtype=torch.float64)

    return uniform(batch, n, d), uniform(batch, n), uniform(batch, m, d), uniform(batch, 2)


def dense(net: NeuralAcquisitionProcess, x: Tensor, y: Tensor, c: Tensor, state: Tensor, mask: Tensor) -> list[Tensor]:
    """What the paper writes: one sequence of history and candidates, every row of the (n + m)² mask spelt out."""
    n, m = x.shape[1], c.shape[1]
    tokens = torch.cat([net.embed_x(x) + net.embed_y(y.unsqueeze(-1)), net.embed_x(c)], 1)
    sees = torch.zeros(len(x), n + m, n + m, dtype=torch.bool)
    for b in range(len(x)):
        for i in range(n + m):
            for j in range(n + m):
                sees[b, i, j] = i == j or (j < n and bool(mask[b, j]))
    hidden = net.encoder(tokens, mask=~sees.repeat_interleave(4, 0))[:, n:]
    bars = net.bars_head(hidden)
    features = torch.cat([bars.softmax(-1), net.embed_x(c), state.unsqueeze(1).expand(-1, m, -1)], -1)
    return [net.acquisition_head(features).squeeze(-1) / net.temperature, bars, net.value_head(state).squeeze(-1)]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("n", [0, 1, 7])
def test_is_torchs_encoder_behind_a_dense_mask(n: int, padded: bool) -> None:
    net, inputs = policy(), problem(n)
    mask = torch.rand(4, n, generator=torch.Generator().manual_seed(2)) < 0.6 if padded else torch.ones(4, n) > 0
    if padded and n:
        mask[0] = False  # nothing to see at all
    ours = net(*inputs, context_mask=mask if padded else None)
    expected = dense(net, *inputs, mask)
    torch.testing.assert_close([*ours], expected, rtol=1e-10, atol=1e-10)
    gradients = [
        torch.autograd.grad(out[0].sin().sum() + out[1].sin().sum() + out[2].sum(), net.parameters(), allow_unused=True)
        for out in (ours, expected)
    ]
    for (name, _), one, other in zip(net.named_parameters(), *gradients, strict=True):
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")
        else:
            assert n == 0 and name.startswith("embed_y") and all(g is None or not g.any() for g in (one, other))  # noqa: PT018


def test_in_float32_too_and_in_training() -> None:
    net, inputs = policy().float().train(), [part.float() for part in problem(5)]
    expected = dense(net, *inputs, torch.ones(4, 5) > 0)  # type: ignore[arg-type]
    torch.testing.assert_close([*net(*inputs)], expected, rtol=1e-4, atol=1e-4)


def test_parameters_have_the_published_names() -> None:
    net = policy()
    names = {
        name.rpartition(".")[0].replace(".1.", ".0.") for name in net.state_dict() if not name.startswith("encoder")
    }
    heads = {f"bars_head.{i}" for i in (0, 2)} | {f"acquisition_head.{i}" for i in (0, 2, 4, 6)}
    assert names == heads | {"value_head.0", "value_head.2", "embed_x", "embed_y", "bars"}
    layer = torch.nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
    encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    assert {n for n in net.state_dict() if n.startswith("encoder")} == {f"encoder.{n}" for n in encoder.state_dict()}
    first, second = net.encoder.layers
    assert not torch.equal(first.linear1.weight, second.linear1.weight)  # each layer is drawn anew


@settings(max_examples=40)
@given(st.permutations(range(5)), st.permutations(range(6)), st.integers(1, 6), st.integers(0, 3))
def test_sees_a_set_of_trials_and_no_other_candidate(
    order: list[int], among: list[int], offered: int, padding: int
) -> None:
    net = policy()
    x, y, c, state = problem(5, 6)
    whole = net(x, y, c, state)
    fill = torch.full((4, padding, 3), 7.0, dtype=torch.float64)
    mask = torch.arange(5 + padding).expand(4, -1) < 5
    part = net(
        torch.cat([x[:, order], fill], 1),
        torch.cat([y[:, order], fill[..., 0]], 1),
        c[:, among[:offered]],
        state,
        context_mask=mask,
    )
    torch.testing.assert_close(part.acquisition, whole.acquisition[:, among[:offered]], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(part.bars, whole.bars[:, among[:offered]], rtol=1e-9, atol=1e-9)
    assert torch.equal(part.value, whole.value)


def test_every_trial_counts_and_dropout_only_in_training() -> None:
    net, (x, y, c, state) = policy(dropout=0.5), problem(3)
    assert torch.equal(net(x, y, c, state).bars, net(x, y, c, state).bars)
    for changed in (net(x, y + 0.1, c, state), net(x[:, :2], y[:, :2], c, state), net.train()(x, y, c, state)):
        assert not torch.isclose(changed.bars, net.eval()(x, y, c, state).bars).any()


def test_the_acquisition_teaches_the_bars() -> None:
    net = policy()
    net(*problem(3)).acquisition.sum().backward()
    assert net.bars_head[2].weight.grad.abs().sum() > 0
    assert net.encoder.layers[0].linear1.weight.grad.abs().sum() > 0
    assert net.value_head[0].weight.grad is None


def test_temperature_divides() -> None:
    hot, cold, inputs = policy(temperature=0.5), policy(temperature=0.25), problem(2)
    torch.testing.assert_close(hot(*inputs).acquisition * 2, cold(*inputs).acquisition)
    assert isinstance(hot(*inputs), AcquisitionOutput)


# bars


def density(logits: np.ndarray, borders: np.ndarray, y: float) -> float:
    """The density at y, zero outside."""
    if not borders[0] <= y <= borders[-1]:
        return 0.0
    bar = min(int(np.searchsorted(borders, y, side="right")) - 1, len(borders) - 2)
    odds = np.exp(logits - logits.max())
    return float(odds[bar] / odds.sum() / (borders[bar + 1] - borders[bar]))


BORDERS = np.array([-0.3, 0.0, 0.1, 0.45, 0.8, 1.2])
LOGITS = torch.randn(3, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("best", [-1.0, -0.3, 0.05, 0.1, 0.3, 1.0, 1.2, 5.0])
def test_expected_improvement_is_the_integral(best: float) -> None:
    bars = BarDistribution(torch.from_numpy(BORDERS))
    found = bars.expected_improvement(LOGITS, torch.full((3,), best, dtype=torch.float64))
    for i, j in np.ndindex(3, 2):
        row = LOGITS[i, j].numpy()
        points = sorted({*BORDERS[1:-1], *([best] if -0.3 < best < 1.2 else [])})
        expected, _ = quad(lambda y, row=row: max(y - best, 0) * density(row, BORDERS, y), -0.3, 1.2, points=points)
        assert found[i, j].item() == pytest.approx(expected, abs=1e-10)


def test_moments_are_those_of_the_middles_and_the_density_integrates_to_one() -> None:
    bars, middles = BarDistribution(torch.from_numpy(BORDERS)), (BORDERS[1:] + BORDERS[:-1]) / 2
    for i, j in np.ndindex(3, 2):
        p = LOGITS[i, j].softmax(-1).numpy()
        mean, variance = bars.mean(LOGITS)[i, j].item(), bars.variance(LOGITS)[i, j].item()
        assert mean == pytest.approx(np.average(middles, weights=p))
        assert variance == pytest.approx(np.average((middles - mean) ** 2, weights=p))
        grid = torch.linspace(-0.3, 1.2, 30_001, dtype=torch.float64)[:-1] + 2.5e-5
        heights = bars.log_prob(LOGITS[i, j].expand(30_000, -1), grid).exp()
        assert heights.mean().item() * 1.5 == pytest.approx(1, abs=1e-6)


def test_a_border_belongs_to_the_bar_above_and_the_outside_to_the_nearest() -> None:
    bars = BarDistribution(torch.from_numpy(BORDERS))
    at = torch.tensor([-9.0, -0.3, 0.1, 0.1 - 1e-9, 1.2, 1e9], dtype=torch.float64)
    expected = [density(LOGITS[0, 0].numpy(), BORDERS, y) for y in (-0.2, -0.2, 0.2, 0.05, 1.0, 1.0)]
    assert bars.log_prob(LOGITS[0, 0].expand(6, -1), at).exp().tolist() == pytest.approx(expected)


# files


def test_a_policy_and_how_it_was_made_come_back(tmp_path: Path) -> None:
    net, inputs = policy(y_range=(-0.5, 2.0), temperature=0.3), problem(4)
    save_policy(net, tmp_path / "policy.safetensors")
    again = load_policy(tmp_path / "policy.safetensors")
    assert again.options == net.options
    assert not again.training
    assert all(torch.equal(one, other) for one, other in zip(net(*inputs), again(*inputs), strict=True))
    other = policy(seed=9, y_range=(-0.5, 2.0), temperature=0.3)
    load_model(other, tmp_path / "policy.safetensors")  # to safetensors it is a model like any other
    assert all(torch.equal(one, two) for one, two in zip(net(*inputs), other(*inputs), strict=True))


def test_a_file_that_is_no_policy_is_named(tmp_path: Path) -> None:
    file = tmp_path / "policy.safetensors"
    with pytest.raises(FileNotFoundError):
        load_policy(file)
    save_model(policy(), str(file))
    with pytest.raises(ValueError, match=r"policy\.safetensors does not say how its policy was made; save_policy"):
        load_policy(file)
    save_policy(policy(), file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"is no policy that save_policy wrote, or is damaged"):
        load_policy(file)
    file.write_bytes(
        whole.replace(json.dumps('"num_bars": 12').encode()[1:-1], json.dumps('"num_bars": 13').encode()[1:-1])
    )
    with pytest.raises(ValueError, match=r"is no policy .* or is damaged: .*size mismatch"):
        load_policy(file)


# what is optional


def test_imports_without_what_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    optional = {"botorch", "gpytorch", "optuna", "linear_operator"}
    for name in [name for name in sys.modules if name.partition(".")[0] in optional or "_optuna_sampler" in name]:
        monkeypatch.delitem(sys.modules, name)
    original = builtins.__import__

    def absent(name: str, *args: object) -> object:
        if name.partition(".")[0] in optional:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", absent)
    for name in optional:
        monkeypatch.setitem(sys.modules, name, None)
    fresh = importlib.reload(meta_bo)
    with pytest.raises(ImportError, match=r'optuna.* is not installed; pip install "throughline\[search\]"'):
        fresh.NAPSampler  # noqa: B018
    with pytest.raises(ImportError, match=r'botorch is not installed; pip install "throughline\[search\]"'):
        meta_bo.GPOptimizer(torch.eye(3))
    with pytest.raises(ImportError, match=r'botorch is not installed; pip install "throughline\[search\]"'):
        meta_bo.gp_prior_tasks([(torch.eye(3), torch.arange(3.0))])
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        meta_bo.nonsense  # noqa: B018
