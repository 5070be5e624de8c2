"""The checks against SciPy's own tests, and the rate at which their intervals cover the truth."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from throughline.lab.checks import Beats, Costs, Matches, Within, seeds_needed, t_interval

RUNS = 4000


class Table:
    """Results by hand: arm -> the metric's values over seeds 0, 1, …"""

    def __init__(self, **arms: list[float] | np.ndarray) -> None:
        self.arms = arms

    def values(self, metric: str, arm: str) -> dict[int, float]:
        return dict(enumerate(self.arms.get(arm, [])))


def test_beats_is_scipys_paired_t_interval() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 12))
    outcome = Beats("m", "a", over="b").judge(Table(a=a, b=b))
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (outcome.low, outcome.high) == pytest.approx((expected.low, expected.high))
    assert outcome.estimate == pytest.approx((a - b).mean())
    assert outcome.points == tuple(a - b)


@pytest.mark.parametrize(
    ("gain", "margin", "verdict"),
    [
        ([1.0, 1.1, 0.9], 0.0, "held"),
        ([-1.0, -1.1, -0.9], 0.0, "refuted"),
        ([1.0, -1.0, 0.5], 0.0, "not shown"),
        ([1.0, 1.1, 0.9], 0.95, "not shown"),
        ([1.0, 1.1, 0.9], 2.0, "refuted"),
        ([1.0], 0.0, "not shown"),
        ([], 0.0, "not shown"),
        ([1.0, math.nan, 1.0], 0.0, "not shown"),
    ],
)
def test_beats_takes_sides_only_with_its_whole_interval(gain: list[float], margin: float, verdict: str) -> None:
    table = Table(new=gain, old=[0.0] * len(gain))
    assert Beats("m", "new", over="old", margin=margin).judge(table).verdict == verdict
    flipped = Table(new=[-g for g in gain], old=[0.0] * len(gain))
    assert Beats("m", "new", over="old", margin=margin, lower=True).judge(flipped).verdict == verdict


def test_only_seeds_that_both_arms_finished_count() -> None:
    outcome = Beats("m", "new", over="old").judge(Table(new=[1.0, 2.0, 3.0], old=[0.0, 1.5]))
    assert outcome.seeds == (0, 1)
    assert outcome.points == (1.0, 0.5)


def test_one_seed_says_that_it_is_too_few() -> None:
    assert "needs two seeds" in Beats("m", "a", over="b").judge(Table(a=[1.0], b=[0.0])).reason


def test_matches_is_two_one_sided_tests() -> None:
    rng = np.random.default_rng(1)
    for shift in np.linspace(-0.3, 0.3, 25):
        a = rng.normal(shift, 0.2, 15)
        low = stats.ttest_1samp(a, -0.2, alternative="greater").pvalue
        high = stats.ttest_1samp(a, 0.2, alternative="less").pvalue
        verdict = Matches("m", "a", to="b", margin=0.2).judge(Table(a=a, b=np.zeros(15))).verdict
        assert (verdict == "held") == (max(low, high) < 0.05)


def test_matches_is_refuted_only_beyond_the_margin() -> None:
    far = Table(a=[1.0, 1.1, 0.9, 1.0], b=[0.0] * 4)
    assert Matches("m", "a", to="b", margin=0.5).judge(far).verdict == "refuted"
    assert Matches("m", "a", to="b", margin=1.0).judge(far).verdict == "not shown"
    assert Matches("m", "a", to="b", margin=2.0).judge(far).verdict == "held"


def test_within_wants_every_seed_inside() -> None:
    check = Within("m", "a", at_most=1.0, at_least=0.0)
    assert check.judge(Table(a=[0.0, 0.5, 1.0])).verdict == "held"
    outside = check.judge(Table(a=[0.0, 1.5, 1.0]))
    assert outside.verdict == "refuted"
    assert outside.reason == "outside on seeds 1"
    assert check.judge(Table(a=[0.0, math.nan])).verdict == "refuted"
    assert check.judge(Table(a=[])).verdict == "not shown"


def test_costs_is_the_interval_of_the_log_ratio() -> None:
    rng = np.random.default_rng(2)
    slow, fast = np.exp(rng.normal(1.0, 0.1, 9)), np.exp(rng.normal(0.0, 0.1, 9))
    outcome = Costs("seconds", "slow", over="fast", at_most=4.0).judge(Table(slow=slow, fast=fast))
    expected = np.exp(stats.ttest_1samp(np.log(slow / fast), 0).confidence_interval(0.95))
    assert (outcome.low, outcome.high) == pytest.approx(tuple(expected))
    assert outcome.verdict == "held"
    assert Costs("s", "slow", over="fast", at_most=1.5).judge(Table(slow=slow, fast=fast)).verdict == "refuted"
    assert Costs("s", "a", over="b", at_most=1.5).judge(Table(a=[0.0, 1.0], b=[1.0, 1.0])).verdict == "not shown"


@pytest.mark.parametrize("n", [3, 5, 10, 30])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_intervals_cover_at_the_stated_rate(n: int, confidence: float) -> None:
    samples = np.random.default_rng(n).normal(0.3, 2.0, (RUNS, n))
    intervals = np.array([t_interval(sample, confidence) for sample in samples])
    covered = ((intervals[:, 1] <= 0.3) & (intervals[:, 2] >= 0.3)).mean()
    assert abs(covered - confidence) < 4 * math.sqrt(confidence * (1 - confidence) / RUNS)


@pytest.mark.parametrize("n", [3, 5, 10, 30])
def test_false_verdicts_stay_rare(n: int) -> None:
    """With no effect `Beats` holds in 2.5% of runs; at the margin's edge `Matches` holds in at most 5%."""
    noise = np.random.default_rng(n).normal(size=(RUNS, n))
    beats = np.mean([t_interval(x)[1] > 0 for x in noise])
    assert abs(beats - 0.025) < 4 * math.sqrt(0.025 * 0.975 / RUNS)
    edge = np.mean([low > -2 and high < 2 for _, low, high in (t_interval(x + 2, 0.9) for x in noise)])
    assert edge < 0.05 + 4 * math.sqrt(0.05 * 0.95 / RUNS)
    for x in noise[:40]:  # and the checks decide by just these intervals
        table = Table(a=x, b=np.zeros(n))
        assert (Beats("m", "a", over="b").judge(table).verdict == "held") == (t_interval(x)[1] > 0)


def test_cost_intervals_cover_too() -> None:
    rng = np.random.default_rng(3)
    ratios = np.exp(rng.normal(math.log(1.5), 0.4, (RUNS, 10)))
    outcomes = [Costs("s", "a", over="b", at_most=9.0).judge(Table(a=row, b=np.ones(10))) for row in ratios]
    covered = np.mean([outcome.low <= 1.5 <= outcome.high for outcome in outcomes])
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / RUNS)


def test_power_of_the_default_is_what_the_design_says() -> None:
    """For an effect of one standard deviation: 10 seeds give 80% power, 5 give 40%; by simulation."""
    rng = np.random.default_rng(4)
    power = {n: np.mean([t_interval(x)[1] > 0 for x in rng.normal(1.0, 1.0, (RUNS, n))]) for n in (5, 10)}
    assert power[10] == pytest.approx(0.8, abs=0.03)
    assert power[5] == pytest.approx(0.4, abs=0.03)
    assert seeds_needed(np.array([0.0, 2.0, 1.0])) == 10


@given(st.floats(0.2, 3.0), st.integers(3, 12))
def test_more_seeds_are_needed_for_a_smaller_effect(effect: float, n: int) -> None:
    x = np.linspace(-1, 1, n)
    big, small = seeds_needed(x / x.std(ddof=1) + effect), seeds_needed(x / x.std(ddof=1) + effect / 2)
    assert big is not None
    assert small is not None
    assert small >= big


def test_no_effect_needs_no_number() -> None:
    assert seeds_needed(np.array([1.0, -1.0])) is None
    assert seeds_needed(np.array([1.0])) is None
    assert seeds_needed(np.array([1e-6, 1.0, -1.0])) is None  # past any number of seeds that one would run


@pytest.mark.parametrize("n", [2, 3, 10])
def test_identical_arms_do_not_beat(n: int) -> None:
    assert Beats("m", "a", over="b").judge(Table(a=np.ones(n), b=np.ones(n))).verdict == "refuted"
    assert Matches("m", "a", to="b", margin=0.1).judge(Table(a=np.ones(n), b=np.ones(n))).verdict == "held"


def test_bad_bounds_are_named() -> None:
    with pytest.raises(ValueError, match="at_most or at_least must be given"):
        Within("m", "a")
    with pytest.raises(ValueError, match="margin must be positive"):
        Matches("m", "a", to="b", margin=0.0)
    with pytest.raises(ValueError, match="at_most must be positive"):
        Costs("m", "a", over="b", at_most=-1.0)


def test_matches_is_refuted_by_the_95_percent_interval_and_not_by_the_90() -> None:
    """Between the two quantiles a difference is neither shown to be inside nor shown to be outside."""
    base = np.linspace(-1, 1, 9)
    error = base.std(ddof=1) / 3  # of the mean of nine
    t90, t95 = stats.t.ppf([0.95, 0.975], 8)
    for sign in (1, -1):
        for steps, verdict in ((t90 * 1.01, "not shown"), (t95 * 0.99, "not shown"), (t95 * 1.01, "refuted")):
            table = Table(a=sign * (base + 0.5 + steps * error), b=np.zeros(9))
            assert Matches("m", "a", to="b", margin=0.5).judge(table).verdict == verdict


def test_beats_needs_seeds_for_what_exceeds_its_margin() -> None:
    gain = np.array([0.9, 1.4, 0.2, 1.1, 1.9])
    shifted = Beats("m", "a", over="b").judge(Table(a=gain - 0.6, b=np.zeros(5))).needed
    assert Beats("m", "a", over="b", margin=0.6).judge(Table(a=gain, b=np.zeros(5))).needed == shifted
    assert shifted != Beats("m", "a", over="b", margin=0.5).judge(Table(a=gain, b=np.zeros(5))).needed
    assert Beats("m", "a", over="b", lower=True, margin=0.6).judge(Table(a=-gain, b=np.zeros(5))).needed == shifted
    assert seeds_needed(gain - 0.6) == shifted


def test_costs_needs_seeds_for_its_distance_from_the_bound() -> None:
    ratio = np.array([1.2, 1.7, 1.1, 1.5, 2.1])
    halved = Costs("s", "a", over="b", at_most=1.0).judge(Table(a=ratio / 2, b=np.ones(5))).needed
    assert halved is not None
    assert Costs("s", "a", over="b", at_most=2.0).judge(Table(a=ratio, b=np.ones(5))).needed == halved


@pytest.mark.parametrize("shift", [0.0, 0.4, -0.4])
def test_matches_needs_seeds_that_show_it_four_times_out_of_five(shift: float) -> None:
    """By simulation: with as many seeds equivalence is shown in at least 80% of runs, with half as many it is not."""
    sample = np.linspace(-1, 1, 4)
    sample = sample / sample.std(ddof=1) + shift
    needed = Matches("m", "a", to="b", margin=1.0).judge(Table(a=sample, b=np.zeros(4))).needed
    assert needed is not None
    rng = np.random.default_rng(5)

    def power(n: int) -> float:
        x = rng.normal(shift, 1.0, (RUNS, n))
        half = stats.t.ppf(0.95, n - 1) * x.std(1, ddof=1) / math.sqrt(n)
        return float(np.mean(np.abs(x.mean(1)) + half < 1.0))

    assert power(needed) > 0.8 - 4 * math.sqrt(0.16 / RUNS)
    assert power(needed // 2) < 0.7


def test_what_is_shown_or_out_of_reach_needs_no_number() -> None:
    held = Matches("m", "a", to="b", margin=9.0).judge(Table(a=[1.0, 1.1, 0.9], b=[0.0] * 3))
    far = Matches("m", "a", to="b", margin=0.5).judge(Table(a=[9.0, -2.0, 0.9], b=[0.0] * 3))
    assert (held.verdict, held.needed) == ("held", None)
    assert (far.verdict, far.needed) == ("not shown", None)
    assert Matches("m", "a", to="b", margin=0.5).judge(Table(a=[0.1], b=[0.0])).needed is None


def test_edges_belong_to_one_side() -> None:
    """Without spread an interval is a point: at the bound `Costs` holds, `Beats` is refuted, `Matches` is open."""
    ones = np.ones(4)
    assert Costs("s", "a", over="b", at_most=1.0).judge(Table(a=ones, b=ones)).verdict == "held"
    assert Beats("m", "a", over="b", margin=1.0).judge(Table(a=ones, b=0 * ones)).verdict == "refuted"
    for sign in (1, -1):
        assert Matches("m", "a", to="b", margin=1.0).judge(Table(a=sign * ones, b=0 * ones)).verdict == "not shown"
        assert Matches("m", "a", to="b", margin=0.9).judge(Table(a=sign * ones, b=0 * ones)).verdict == "refuted"
