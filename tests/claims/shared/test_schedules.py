"""Schedules: where a rate stands at each step."""

import math

import pytest
import torch

from throughline.claims.shared.schedules import warm_cosine


@pytest.mark.parametrize(("rise", "used"), [(4, 4), (0, 1), (50, 10)])
def test_a_rise_and_a_cosine(rise: int, used: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    schedule = warm_cosine(optimizer, 20, rise)
    rates = []
    for _ in range(20):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    up = [2 * (1 / used + (1 - 1 / used) * step / used) for step in range(used)]
    down = [1 + math.cos(math.pi * step / (20 - used)) for step in range(20 - used)]
    assert rates == pytest.approx([*up, *down])
    assert schedule.get_last_lr()[0] == pytest.approx(0)
