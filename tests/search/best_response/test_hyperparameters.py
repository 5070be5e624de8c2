"""Hyperparameter spaces: transforms against their inverses, ranges, draws and their gradients, entropy by SciPy."""

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from throughline.search.best_response import Hyperparameter, HyperparameterSpace

inf = math.inf


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("initial", "low", "high"),
    [(0.05, 0.0, 0.9), (-1e-3, -2.0, 5.0), (1e-6, 0.0, inf), (40.0, 3.0, inf), (-7.0, -inf, 2.0), (3.5, -inf, inf)],
)
def test_starts_at_the_initial_value(initial: float, low: float, high: float) -> None:
    space = HyperparameterSpace([Hyperparameter("h", initial, low, high)])
    assert space.values()["h"] == pytest.approx(initial, rel=1e-5, abs=1e-6)


@given(st.floats(-100, 100), st.sampled_from([(0.0, 0.9), (-3.0, inf), (-inf, 4.0), (-inf, inf)]), st.floats(-100, 100))
def test_values_stay_in_range_and_grow_with_lambda(at: float, limits: tuple[float, float], other: float) -> None:
    low, high = limits
    initial = (max(low, -5.0) + min(high, 5.0)) / 2
    space = HyperparameterSpace([Hyperparameter("h", initial, low, high)]).double()
    one, two = space.constrain(torch.tensor([[at], [other]], dtype=torch.float64))["h"].tolist()
    assert low <= one <= high
    if at < other:
        assert one >= two if math.isinf(low) and math.isfinite(high) else one <= two


@pytest.mark.parametrize("initial", range(5))
def test_every_integer_can_be_reached_and_is_a_start(initial: int) -> None:
    space = HyperparameterSpace([Hyperparameter("holes", initial, 0, 4, discrete=True)])
    assert space.values() == {"holes": initial}
    found = space.constrain(torch.linspace(-12, 12, 2001)[:, None])["holes"]
    assert found.unique().tolist() == [0, 1, 2, 3, 4]
    assert space.constrain(torch.tensor([[60.0], [-60.0]]))["holes"].tolist() == [4, 0]
    # cells of equal width under the sigmoid
    shares = space.constrain(torch.logit(torch.rand(50_000, 1, generator=seeded(), dtype=torch.float64)))["holes"]
    assert np.bincount(shares.long().numpy(), minlength=5) == pytest.approx(np.full(5, 10_000), rel=0.05)


def test_columns_and_leading_dimensions() -> None:
    space = HyperparameterSpace([Hyperparameter("a", 0.5, 0, 1), Hyperparameter("b", 2.0, low=1.0)])
    value = torch.randn(4, 3, 2, generator=seeded())
    found = space.constrain(value)
    torch.testing.assert_close(found["a"], value[..., 0].sigmoid())
    torch.testing.assert_close(found["b"], 1 + torch.nn.functional.softplus(value[..., 1]))
    assert space.names == ("a", "b")
    assert repr(space) == "HyperparameterSpace(a, b)"


def test_draws_are_normal_around_lambda() -> None:
    space = HyperparameterSpace([Hyperparameter("a", 0.5, 0, 1, scale=0.3), Hyperparameter("b", 2.0, scale=1.0)])
    drawn = space.sample(20_000, generator=seeded()).detach()
    for column, mean, scale in zip(drawn.T, (0.0, 2.0), (0.3, 1.0), strict=True):
        assert scipy.stats.kstest(column.numpy(), "norm", (mean, scale)).pvalue > 0.01
    assert abs(np.corrcoef(drawn.T.numpy())[0, 1]) < 0.03
    assert torch.equal(space.sample(20_000, generator=seeded()), drawn)
    torch.testing.assert_close(space.scale, torch.tensor([0.3, 1.0]))


def test_a_draw_is_differentiable_in_both() -> None:
    space = HyperparameterSpace([Hyperparameter("a", 0.5, 0, 1), Hyperparameter("b", 2.0)]).double()
    noise = torch.randn(5, 2, generator=seeded(), dtype=torch.float64)
    by_location, by_scale = torch.autograd.grad(
        space.sample(5, generator=seeded()).sum(), (space.location, space.raw_scale)
    )
    assert by_location.tolist() == [5, 5]
    torch.testing.assert_close(by_scale, noise.sum(0) * space.raw_scale.detach().sigmoid())


def test_a_shared_one_is_the_same_in_the_batch() -> None:
    space = HyperparameterSpace([Hyperparameter("a", 0.5), Hyperparameter("b", 2.0, shared=True)])
    drawn = space.sample(6, generator=seeded())
    assert drawn[:, 1].unique().numel() == 1
    assert drawn[:, 0].unique().numel() == 6
    plain = HyperparameterSpace([Hyperparameter("a", 0.5), Hyperparameter("b", 2.0)]).sample(6, generator=seeded())
    assert torch.equal(drawn[0], plain[0])  # of sample 0


def test_entropy_is_that_of_the_gaussian() -> None:
    scales = (0.01, 0.5, 3.0)
    space = HyperparameterSpace([Hyperparameter(str(s), 0.0, scale=s) for s in scales]).double()
    expected = sum(scipy.stats.norm(scale=s).entropy() for s in scales)
    assert space.entropy().item() == pytest.approx(expected, abs=1e-6)
    assert torch.autograd.gradcheck(lambda s: space.entropy(), space.raw_scale)


def test_entropy_is_finite_for_a_collapsed_scale() -> None:
    space = HyperparameterSpace([Hyperparameter("a", 0.0)])
    values = []
    for s in (-14.99, -15.01, -500.0):
        with torch.no_grad():
            space.raw_scale.fill_(s)
        values.append(space.entropy().item())
        (gradient,) = torch.autograd.grad(space.entropy(), space.raw_scale)
        assert gradient.item() == pytest.approx(1.0, abs=1e-5)
    assert values[0] - values[1] == pytest.approx(0.02, abs=1e-3)
    assert math.isfinite(values[2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"initial": 0.0}, r"initial must be inside \(0\.0, 0\.9\), got 0\.0 for 'p'"),
        ({"initial": 0.9}, r"initial must be inside"),
        ({"initial": math.nan}, r"initial must be inside"),
        ({"initial": inf, "high": inf}, r"initial must be inside"),
        ({"low": 0.9}, r"low must be below high, got 0\.9 and 0\.9 for 'p'"),
        ({"low": 1.0}, r"low must be below high"),
        ({"low": math.nan}, r"low must be below high"),
        ({"scale": 0.0}, r"scale must be positive and finite, got 0\.0 for 'p'"),
        ({"scale": inf}, r"scale must be positive"),
        ({"discrete": True}, r"low and high must be integers when discrete, got 0\.0 and 0\.9"),
        ({"discrete": True, "high": inf}, r"low and high must be integers when discrete, got 0\.0 and inf"),
        ({"discrete": True, "high": 4, "initial": 5}, r"initial must be an integer in \[0\.0, 4\], got 5"),
        ({"discrete": True, "high": 4, "initial": 1.5}, r"initial must be an integer in"),
    ],
)
def test_names_a_bad_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Hyperparameter(**{"name": "p", "initial": 0.05, "low": 0.0, "high": 0.9, **changes})
