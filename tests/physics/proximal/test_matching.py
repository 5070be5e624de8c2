"""The loss and its schedule against their formulas."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from throughline.physics.proximal import (
    ProximalMatchingLoss,
    proximal_matching_loss,
    proximal_matching_schedule,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.integers(0, 999), st.floats(0.05, 20), st.sampled_from([(4,), (3, 2), (2, 1, 3, 3)]))
def test_loss_is_its_formula_over_whole_samples(seed: int, gamma: float, shape: tuple[int, ...]) -> None:
    a, b = torch.randn(2, *shape, dtype=torch.float64, generator=seeded(seed))
    expected = [1 - math.exp(-float(((x - y) ** 2).sum()) / gamma**2) for x, y in zip(a, b, strict=True)]
    each = proximal_matching_loss(a, b, gamma=gamma, reduction="none")
    torch.testing.assert_close(each, torch.tensor(expected, dtype=torch.float64))
    assert ProximalMatchingLoss(gamma)(a, b) == pytest.approx(np.mean(expected))
    assert ProximalMatchingLoss(gamma, reduction="sum")(a, b) == pytest.approx(np.sum(expected))


def test_small_differences_are_not_lost() -> None:
    loss = proximal_matching_loss(torch.full((1, 4), 1e-6), torch.zeros(1, 4), gamma=1.0)
    assert float(loss) == pytest.approx(4e-12)  # 1 − exp would be 0 in float32
    half = torch.full((1, 400), 20.0, dtype=torch.float16)
    assert proximal_matching_loss(half, half - 16, gamma=1e3) == pytest.approx(1 - math.exp(-0.1024), abs=1e-3)


def test_minimiser_moves_from_the_mean_to_the_mode() -> None:
    """Two thirds of the targets lie at 0, one third at 3."""
    targets, places = torch.tensor([0.0, 0.0, 3.0]), torch.linspace(-1, 4, 501)
    best = [
        float(places[proximal_matching_loss(places[:, None].expand(-1, 3).reshape(-1, 1), targets.repeat(501)[:, None],
              gamma=gamma, reduction="none").view(501, 3).mean(1).argmin()])
        for gamma in (100.0, 0.5)
    ]  # fmt: skip
    assert best == pytest.approx([1.0, 0.0], abs=0.02)


def test_gamma_may_be_set_anew() -> None:
    loss = ProximalMatchingLoss(1.0)
    first = loss(torch.ones(1, 1), torch.zeros(1, 1))
    loss.gamma = 0.5
    assert loss(torch.ones(1, 1), torch.zeros(1, 1)) > first


def test_schedule_of_the_paper() -> None:
    unit = 0.08 * math.sqrt(28 * 28)
    found = [proximal_matching_schedule(t, total=40_000, pretrain=20_000, gamma_min=unit) for t in range(0, 40_001, 5)]
    assert found[:4000] == [None] * 4000
    assert found[4000:8000] == [unit * scale for scale in (8, 4, 2, 1) for _ in range(1000)]
    assert found[8000] == unit


@pytest.mark.parametrize(
    ("match", "options"),
    [
        ("step must be at least 0, got -1", {"step": -1}),
        ("pretrain must be from 0 to below total, got 9 of 9", {"pretrain": 9}),
        ("pretrain must be from 0 to below total, got -1 of 9", {"pretrain": -1}),
        ("stages must be at least 1, got 0", {"stages": 0}),
        (r"gamma_min must be positive and finite, got 0\.0", {"gamma_min": 0.0}),
    ],
)
def test_schedule_refuses(match: str, options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=match):
        proximal_matching_schedule(**{"step": 0, "total": 9, "pretrain": 3, "gamma_min": 0.1, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "match", "make"),
    [
        (ValueError, r"gamma must be positive and finite, got 0\.0", lambda: ProximalMatchingLoss(0.0)),
        (ValueError, "gamma must be .* got nan", lambda: ProximalMatchingLoss(math.nan)),
        (ValueError, "reduction must be one of .*, got 'all'", lambda: ProximalMatchingLoss(1.0, reduction="all")),
        (
            ValueError,
            r"one shape, got \(2, 3\) and \(2, 1\)",
            lambda: proximal_matching_loss(torch.ones(2, 3), torch.ones(2, 1), gamma=1.0),
        ),
        (ValueError, r"got \(\) and \(\)", lambda: proximal_matching_loss(torch.ones(()), torch.ones(()), gamma=1.0)),
        (
            TypeError,
            "target must be floating point, got torch.int64",
            lambda: proximal_matching_loss(torch.ones(2, 3), torch.ones(2, 3).long(), gamma=1.0),
        ),
    ],
)  # fmt: skip
def test_loss_refuses(error: type[Exception], match: str, make: Callable[[], object]) -> None:
    with pytest.raises(error, match=match):
        make()
