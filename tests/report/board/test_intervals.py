"""Drawings keep order and proportion, whatever the size of the numbers; figures have the decimals that they deserve."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.report.board.invented import check

from throughline.report.board import Check
from throughline.report.board.intervals import WIDTH, drawings, figures

SIZES = st.floats(-1e300, 1e300)


def test_places_are_proportional() -> None:
    (drawn,) = drawings([check(estimate=1.0, low=0.5, high=2.0, bounds=[-2.0])])
    assert drawn is not None
    assert drawn.estimate is not None
    assert drawn.low is not None
    (bound,) = drawn.bounds
    assert (drawn.estimate - bound) / (drawn.low - bound) == pytest.approx(3.0 / 2.5, abs=1e-3)
    assert drawn.zero == pytest.approx((bound + drawn.estimate * 2) / 3, abs=0.02)
    assert (bound, drawn.high) == (8, WIDTH - 8)


def test_a_ratio_is_drawn_by_its_logarithm() -> None:
    (drawn,) = drawings([check(estimate=2.0, low=1.0, high=8.0, bounds=[1.0], quantity="seconds: a / b")])
    assert drawn is not None
    assert drawn.estimate == pytest.approx(8 + (WIDTH - 16) / 3, abs=0.01)
    (wide,) = drawings([check(estimate=1e-12, low=1e-13, high=1e-11, bounds=[1e-8], quantity="error of a")])
    assert wide is not None
    assert wide.estimate == pytest.approx(8 + (WIDTH - 16) / 5, abs=0.01)


def test_checks_of_one_metric_and_bound_share_a_scale() -> None:
    small, large = check(estimate=0.5), check(estimate=5.0)
    other = check(estimate=0.5, quantity="other: ours − theirs")
    near = check(estimate=0.001, low=-0.001, high=0.003, bounds=[-0.01, 0.01])  # beside 5 one would not see its margin
    first, second, third, fourth = drawings([small, large, other, near])
    assert fourth is not None
    assert fourth.bounds == (8, WIDTH - 8)
    assert first is not None
    assert second is not None
    assert third is not None
    assert first.bounds == second.bounds
    assert first.estimate is not None
    assert third.estimate is not None
    assert first.estimate < third.estimate / 2  # beside the large one it is small


def test_what_is_missing_is_not_drawn() -> None:
    nothing, point = drawings([check(estimate=None), check(low=None, high=None)])
    assert nothing is None
    assert point is not None
    assert (point.low, point.high) == (None, None)
    (alone,) = drawings([check(estimate=0.0, low=0.0, high=0.0)])
    assert alone is not None
    assert alone.estimate == alone.bounds[0] == WIDTH / 2
    assert drawings([check(estimate=1e308, low=-1.7e308, high=1.7e308)]) == [None]  # wider than a float
    assert drawings([]) == []


@given(st.tuples(SIZES, SIZES, SIZES).map(sorted), SIZES, st.sampled_from(["m: a − b", "m: a / b", "m of a"]))
def test_order_is_kept_inside_the_picture(numbers: list[float], bound: float, quantity: str) -> None:
    low, estimate, high = numbers
    (drawn,) = drawings([check(estimate=estimate, low=low, high=high, bounds=[bound], quantity=quantity)])
    assert drawn is not None
    assert drawn.low is not None
    assert drawn.estimate is not None
    assert drawn.high is not None
    assert 8 <= drawn.low <= drawn.estimate <= drawn.high <= WIDTH - 8
    if bound > high:
        assert drawn.bounds[0] >= drawn.high
    if bound < low:
        assert drawn.bounds[0] <= drawn.low


@pytest.mark.parametrize(
    ("estimate", "low", "high", "told"),
    [
        (0.03157, 0.02125, 0.04189, ("0.032", "0.021, 0.042")),
        (0.99999, 0.99985, 1.00013, ("0.99999", "0.99985, 1.00013")),
        (10.94, 6.3, 15.58, ("10.9", "6.3, 15.6")),
        (-8.68, -15.9, -1.2, ("−9", "−16, −1")),
        (-1e-4, -0.3, 0.3, ("0.00", "−0.30, 0.30")),
        (12345.0, 11000.0, 13000.0, ("12345", "11000, 13000")),
        (3.0e-13, 2.7e-13, 3.25e-13, ("3e−13", "2.7e−13, 3.25e−13")),
        (5.4e8, 1e8, 1e9, ("5.4e+08", "1e+08, 1e+09")),
        (0.0, 0.0, 0.0, ("0", "0, 0")),
        (0.5, None, None, ("0.5", "")),
        (0.5, None, 0.75, ("0.5", "–, 0.75")),
        (None, None, None, ("–", "")),
    ],
)
def test_figures(estimate: float | None, low: float | None, high: float | None, told: tuple[str, str]) -> None:
    assert figures(Check(sentence="", verdict="held", estimate=estimate, low=low, high=high)) == told


@given(SIZES, SIZES, SIZES)
def test_figures_never_fail(estimate: float, low: float, high: float) -> None:
    told, _ = figures(Check(sentence="", verdict="held", estimate=estimate, low=low, high=high))
    assert math.isfinite(float(told.replace("−", "-")))
