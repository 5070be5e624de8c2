"""Rates of pulses: everyone has one, and errors of them."""

import math

import numpy as np
import pytest
import torch

from throughline.claims.shared.pulse_rates import rate, rate_errors
from throughline.sensing.pulse import heart_rate


def test_every_pulse_has_a_rate_that_counts() -> None:
    """Where the part has no answer, the highest bin of the band: an arm that abstains would be spared its errors."""
    t = torch.arange(192) / 15.0
    waves = torch.sin(2 * math.pi * torch.tensor([72.0, 160.0, 35.0])[:, None] / 60 * t)
    found = heart_rate(waves, 15.0, low=0.75, high=2.5)
    assert found.isnan().tolist() == [False, True, True]
    counted = rate(waves, 15.0)
    assert counted[0] == found[0]
    assert float(counted[1]) == pytest.approx(150, abs=3)
    assert float(counted[2]) == pytest.approx(45, abs=5)
    assert rate(torch.full((192,), 0.3), 15.0).isnan()


def test_errors_are_those_of_the_formulas() -> None:
    truth, found = torch.tensor([60.0, 80.0, 100.0]), torch.tensor([62.0, 79.0, 110.0])
    errors = rate_errors(found, truth)
    assert errors["mae"] == pytest.approx(13 / 3)
    assert errors["rmse"] == pytest.approx(math.sqrt(105 / 3))
    assert errors["mape"] == pytest.approx(100 * (2 / 60 + 1 / 80 + 10 / 100) / 3)
    assert errors["r"] == pytest.approx(np.corrcoef(truth, found)[0, 1])
    assert rate_errors(found[:1], truth[:1])["r"] == rate_errors(torch.full((3,), 70.0), truth)["r"] == 0
