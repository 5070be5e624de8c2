"""Densities on bars against integrals."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from throughline.search.meta_bo import BarDistribution


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


def test_moments_are_integrals_and_the_density_integrates_to_one() -> None:
    bars = BarDistribution(torch.from_numpy(BORDERS))
    for i, j in np.ndindex(3, 2):
        row = LOGITS[i, j].numpy()
        mean, variance = bars.mean(LOGITS)[i, j].item(), bars.variance(LOGITS)[i, j].item()
        for power, about, found in ((1, 0.0, mean), (2, mean, variance)):
            moment, _ = quad(
                lambda y, row=row, power=power, about=about: (y - about) ** power * density(row, BORDERS, y),
                *(-0.3, 1.2),
                points=BORDERS[1:-1],
            )
            assert found == pytest.approx(moment, abs=1e-10)
        grid = torch.linspace(-0.3, 1.2, 30_001, dtype=torch.float64)[:-1] + 2.5e-5
        heights = bars.log_prob(LOGITS[i, j].expand(30_000, -1), grid).exp()
        assert heights.mean().item() * 1.5 == pytest.approx(1, abs=1e-6)


def test_a_border_belongs_to_the_bar_above_and_the_outside_to_the_nearest() -> None:
    bars = BarDistribution(torch.from_numpy(BORDERS))
    at = torch.tensor([-9.0, -0.3, 0.1, 0.1 - 1e-9, 1.2, 1e9], dtype=torch.float64)
    expected = [density(LOGITS[0, 0].numpy(), BORDERS, y) for y in (-0.2, -0.2, 0.2, 0.05, 1.0, 1.0)]
    assert bars.log_prob(LOGITS[0, 0].expand(6, -1), at).exp().tolist() == pytest.approx(expected)


def test_the_variance_of_one_bar_is_that_of_a_uniform_number() -> None:
    assert BarDistribution(torch.tensor([2.0, 5.0])).variance(torch.zeros(1)).item() == pytest.approx(9 / 12)


def test_an_outcome_or_an_incumbent_that_is_nan_has_no_number() -> None:
    bars = BarDistribution(torch.from_numpy(BORDERS))
    y = torch.tensor([0.5, torch.nan, 0.5], dtype=torch.float64)
    assert bars.log_prob(LOGITS[:, 0], y).isnan().tolist() == [False, True, False]
    assert bars.expected_improvement(LOGITS, y).isnan().all(-1).tolist() == [False, True, False]


def test_logits_of_an_autocast_network_serve_the_moments() -> None:
    bars, logits = BarDistribution(torch.from_numpy(BORDERS)).float(), LOGITS.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = bars.mean(logits), bars.variance(logits), bars.expected_improvement(logits, torch.zeros(3))
    wide = logits.float()
    wanted = bars.mean(wide), bars.variance(wide), bars.expected_improvement(wide, torch.zeros(3))
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
