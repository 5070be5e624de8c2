"""The network against torch's own encoder behind a dense mask, and what it must not see."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from throughline.search.meta_bo import (
    AcquisitionOutput,
    NeuralAcquisitionProcess,
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
