"""Dropout of many rates: how much goes, how much the rest is scaled, and where no gradient goes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from throughline.search.best_response import TunableDropout


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_dropout_has_the_rate_of_each_sample() -> None:
    x, rate = torch.ones(4, 100_000), torch.tensor([0.0, 0.1, 0.5, 0.9])
    out = TunableDropout()(x, rate, generator=seeded())
    assert torch.equal(out[0], x[0])
    for row, p in zip(out[1:], rate[1:].tolist(), strict=True):
        gone = (row == 0).double().mean().item()
        assert abs(gone - p) < 5 * (p * (1 - p) / 100_000) ** 0.5
        torch.testing.assert_close(row.max().item(), 1 / (1 - p), atol=0, rtol=1e-6)
    assert TunableDropout().eval()(x, rate) is x


def test_dropout_of_channels_is_whole() -> None:
    out = TunableDropout(channels=True)(torch.ones(2, 500, 3, 4), torch.tensor([0.5, 0.2]), generator=seeded())
    assert torch.equal(out, out[..., :1, :1].expand_as(out))
    assert (out[0] == 0).double().mean() == pytest.approx(0.5, abs=0.1)
    assert (out[1] == 0).double().mean() == pytest.approx(0.2, abs=0.1)


def test_dropout_with_one_rate_is_the_usual_one_in_the_mean() -> None:
    x = torch.rand(50_000, generator=seeded())
    for rate in (0.3, torch.tensor(0.3)):
        ours = TunableDropout()(x, rate, generator=seeded(1))
        assert (ours.mean() - x.mean()).abs() < 5 * ours.std() / 50_000**0.5
    assert torch.equal(TunableDropout()(x, 0.0), x)


@given(st.floats(0, 0.999), st.integers(1, 5))
@settings(max_examples=30)
def test_dropout_keeps_or_drops(rate: float, width: int) -> None:
    x = torch.ones(3, width, dtype=torch.float64)
    out = TunableDropout()(x, torch.full((3,), rate), generator=seeded())
    kept = 1 / (1 - torch.tensor(rate).float()).double()
    assert (out.eq(0) | (out - kept).abs().le(1e-4 * kept)).all()


@pytest.mark.parametrize("shape", [(4,), ()])
def test_no_gradient_reaches_the_rate(shape: tuple[int, ...]) -> None:
    rate, x = torch.full(shape, 0.5, requires_grad=True), torch.ones(4, 8, requires_grad=True)
    out = TunableDropout()(x, rate, generator=seeded())
    given_x, given_rate = torch.autograd.grad(out.sum(), (x, rate), allow_unused=True)
    assert given_rate is None
    assert torch.equal(given_x, out)


@pytest.mark.parametrize("rate", [[0.5], "0.5", None, torch.tensor(0.5).numpy()])
def test_a_rate_is_a_number_or_a_tensor(rate: object) -> None:
    with pytest.raises(TypeError, match="rate must be a number or a tensor, got"):
        TunableDropout()(torch.ones(1), rate)  # type: ignore[arg-type]


def test_a_rate_that_is_nan_is_none() -> None:
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\), got nan"):
        TunableDropout()(torch.ones(1), float("nan"))
    rates = torch.tensor([0.0, torch.nan])
    assert TunableDropout()(torch.ones(2, 3), rates).isnan().tolist() == [[False] * 3, [True] * 3]
