"""The checks against SciPy's own tests, and the rate at which their intervals cover the truth."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from throughline.lab import statistics
from throughline.lab.checks import Beats, Check, Costs, Matches, OnAverage, Within
from throughline.lab.statistics import alpha, seeds_needed, t_interval

RUNS = 4000


class Table:
    """Results by hand: arm -> the metric's values over seeds 0, 1, …"""

    def __init__(self, looks: int = 0, **arms: list[float] | np.ndarray) -> None:
        self.looks, self.arms = looks, arms

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
        ([1.0, 1.1], 0.0, "not shown"),
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


EACH: list[Check] = [
    Beats("m", "a", over="b"),
    Matches("m", "a", to="b", margin=5.0),
    Costs("m", "a", over="b", at_most=9.0),
    Within("m", "a", at_most=9.0),
    OnAverage("m", "a", at_most=9.0),
]


@pytest.mark.parametrize("check", EACH, ids=lambda check: type(check).__name__)
def test_two_seeds_make_no_verdict(check: Check) -> None:
    a, b = [2.0, 2.01, 2.02], [1.0, 1.02, 1.01]
    for n in range(3):
        few = check.judge(Table(a=a[:n], b=b[:n]))
        assert (few.verdict, few.needed) == ("not shown", None)
        assert few.reason == f"a verdict needs 3 seeds on which its arms have finished, got {n}"
    assert check.judge(Table(a=a, b=b)).verdict == "held"


@pytest.mark.parametrize("check", EACH, ids=lambda check: type(check).__name__)
def test_what_is_the_same_on_every_seed_shows_nothing_unless_it_is_a_bound_on_each(check: Check) -> None:
    a = 2.0 + 1e-16 * np.arange(5)  # the last bits of a sum are no spread
    outcome = check.judge(Table(a=a, b=np.ones(5)))
    assert outcome.verdict == ("held" if isinstance(check, Within) else "not shown")
    assert isinstance(check, Within) or "every seed gives the same" in outcome.reason
    assert outcome.needed is None


@pytest.mark.parametrize("check", [c for c in EACH if not isinstance(c, Within)], ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("arm", ["a", "b"])
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_named_with_its_arm_and_seed(check: Check, arm: str, wrong: float) -> None:
    arms = {"a": [2.0, 2.1, 2.2, 2.05], "b": [1.0, 1.1, 1.2, 1.3]}
    if arm not in check.arms:
        return
    arms[arm][2] = wrong
    outcome = check.judge(Table(**arms))
    assert (outcome.verdict, outcome.reason) == ("not shown", f"m of {arm} is {wrong:g} on seed 2")


def test_a_small_spread_of_large_numbers_is_a_spread() -> None:
    """Bytes that differ in the seventh digit do differ: a ratio has no unit."""
    bytes_ = 1e10 + 1e3 * np.arange(5.0)
    assert Costs("bytes", "a", over="b", at_most=1.5).judge(Table(a=bytes_, b=np.full(5, 1e10))).verdict == "held"
    assert Costs("bytes", "a", over="b", at_most=1.5).judge(Table(a=bytes_, b=bytes_)).verdict == "not shown"


def test_a_ratio_names_what_is_not_positive() -> None:
    outcome = Costs("s", "a", over="b", at_most=1.5).judge(Table(a=[0.0, 1.0, 1.1], b=[1.0, 1.0, 1.0]))
    assert (outcome.verdict, outcome.reason) == ("not shown", "s of a is 0 on seed 0")


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
    assert outside.reason == "outside on seeds 1 (1.5)"
    broken = check.judge(Table(a=[0.0, 1.0, math.nan]))
    assert (broken.verdict, broken.reason) == ("refuted", "outside on seeds 2 (nan)")
    assert check.judge(Table(a=[])).verdict == "not shown"


def test_costs_is_the_interval_of_the_log_ratio() -> None:
    rng = np.random.default_rng(2)
    slow, fast = np.exp(rng.normal(1.0, 0.1, 9)), np.exp(rng.normal(0.0, 0.1, 9))
    outcome = Costs("seconds", "slow", over="fast", at_most=4.0).judge(Table(slow=slow, fast=fast))
    expected = np.exp(stats.ttest_1samp(np.log(slow / fast), 0).confidence_interval(0.95))
    assert (outcome.low, outcome.high) == pytest.approx(tuple(expected))
    assert outcome.verdict == "held"
    assert Costs("s", "slow", over="fast", at_most=1.5).judge(Table(slow=slow, fast=fast)).verdict == "refuted"


SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "normal": lambda rng, size: rng.normal(0.0, 2.0, size),
    "heavy tails": lambda rng, size: rng.standard_t(3, size),
    "discrete": lambda rng, size: (rng.binomial(50, 0.9, size) - rng.binomial(50, 0.9, size)) / 50.0,  # of 50 rows
}


def rate(value: float, n: int = RUNS) -> float:
    """Four standard errors of a share that is found in so many runs."""
    return 4 * math.sqrt(value * (1 - value) / n)


@pytest.mark.parametrize("n", [3, 5, 10, 30])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_intervals_cover_at_the_stated_rate(n: int, confidence: float) -> None:
    samples = np.random.default_rng(n).normal(0.3, 2.0, (RUNS, n))
    intervals = np.array([t_interval(sample, confidence) for sample in samples])
    covered = ((intervals[:, 1] <= 0.3) & (intervals[:, 2] >= 0.3)).mean()
    assert abs(covered - confidence) < rate(confidence)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [5, 10])
def test_false_verdicts_of_every_check_stay_rare(shape: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the very edge of its promise a check holds, and is refuted, about as often as its tails say, or less."""
    monkeypatch.setattr(statistics, "_smallest", lambda enough, most: None)  # the seeds needed take most of the time
    rng = np.random.default_rng(n)
    noise = SHAPES[shape](rng, (1000, n))
    noise -= SHAPES[shape](rng, (1000, 200)).mean() if shape == "discrete" else 0.0
    spread, zero = float(noise.std()), np.zeros(n)
    at_edge: dict[str, tuple[Check, Callable[[np.ndarray], Table]]] = {
        "beats": (Beats("m", "a", over="b", margin=1.0), lambda x: Table(a=x + 1.0, b=zero)),
        "beats lower": (Beats("m", "a", over="b", lower=True), lambda x: Table(a=zero, b=x)),
        "matches": (Matches("m", "a", to="b", margin=9 * spread), lambda x: Table(a=x + 9 * spread, b=zero)),
        "on average": (OnAverage("m", "a", at_most=2.0), lambda x: Table(a=x + 2.0)),
        "costs": (Costs("m", "a", over="b", at_most=1.5), lambda x: Table(a=1.5 * np.exp(x), b=np.exp(zero))),
    }
    for name, (check, table) in at_edge.items():
        verdicts = [check.judge(table(x)).verdict for x in noise]
        held, refuted = (np.mean([v == kind for v in verdicts]) for kind in ("held", "refuted"))
        nominal = 0.05 if name == "matches" else 0.025
        assert held <= nominal + rate(nominal, len(noise)), name
        assert refuted <= 0.025 + rate(0.025, len(noise)), name
        if shape == "normal":
            assert held >= nominal - rate(nominal, len(noise)), name
            assert refuted >= 0.025 - rate(0.025, len(noise)), name


@pytest.mark.parametrize("looks", [(10, 20), (10, 50), (10, 20, 40, 80, 160)])
def test_widening_after_a_look_raises_no_false_alarm(looks: tuple[int, ...]) -> None:
    """Without an effect, a run that is widened until something is shown ends in a verdict in 6% of runs at most."""
    noise = np.random.default_rng(sum(looks)).normal(size=(RUNS, looks[-1]))
    shown, naive = np.zeros(RUNS, bool), np.zeros(RUNS, bool)
    for k, n in enumerate(looks):
        mean, error = noise[:, :n].mean(1), noise[:, :n].std(1, ddof=1) / math.sqrt(n)
        shown |= np.abs(mean) > stats.t.ppf(1 - alpha(k) / 2, n - 1) * error
        naive |= np.abs(mean) > stats.t.ppf(0.975, n - 1) * error
    assert shown.mean() <= 0.06 + rate(0.06)
    assert naive.mean() > 0.07  # what the correction is there for
    table = Table(looks=1, a=noise[0, :10], b=np.zeros(10))
    outcome = Beats("m", "a", over="b").judge(table)
    assert (outcome.low, outcome.high) == pytest.approx(t_interval(noise[0, :10], 0.995)[1:])
    assert outcome.confidence == 0.995
    assert "99.5% interval" in outcome.reason


def test_all_later_looks_together_spend_one_percent() -> None:
    assert alpha(0) == 0.05
    assert sum(alpha(k) for k in range(1, 60)) == pytest.approx(0.01)


@pytest.mark.parametrize("check", EACH, ids=lambda check: type(check).__name__)
def test_every_interval_widens_after_a_look(check: Check) -> None:
    rng = np.random.default_rng(6)
    arms = {"a": rng.normal(2, 0.3, 8), "b": rng.normal(1, 0.1, 8)}
    plain, later, last = (check.judge(Table(looks=k, **arms)) for k in range(3))
    if isinstance(check, Within):
        assert plain == later
    else:
        assert plain.confidence < later.confidence < last.confidence
        assert last.low < later.low < plain.low < plain.high < later.high < last.high


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


def test_bad_bounds_are_named() -> None:
    with pytest.raises(ValueError, match="at_most or at_least must be given"):
        Within("m", "a")
    with pytest.raises(ValueError, match="at_most or at_least must be given"):
        OnAverage("m", "a")
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


@pytest.mark.parametrize("sign", [1, -1])
def test_the_number_follows_the_direction_of_the_effect(sign: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By simulation: so many new seeds refute, four times out of five, what the sample speaks against."""
    sample = np.array([-2.0, -0.5, 0.3, -0.7, 0.5]) * sign
    cases: list[tuple[Check, Callable[[np.ndarray], Table], str]] = [
        (Beats("m", "a", over="b"), lambda x: Table(a=x, b=0 * x), "held" if sign < 0 else "refuted"),
        (Matches("m", "a", to="b", margin=0.01), lambda x: Table(a=x, b=0 * x), "refuted"),
        (OnAverage("m", "a", at_most=1.0), lambda x: Table(a=x + 1.0), "held" if sign > 0 else "refuted"),
    ]
    rng = np.random.default_rng(7)
    numbers = [check.judge(table(sample)).needed for check, table, _ in cases]
    monkeypatch.setattr(statistics, "_smallest", lambda enough, most: None)
    for (check, table, verdict), needed in zip(cases, numbers, strict=True):
        assert needed is not None
        for n, enough in ((needed, True), (needed // 2, False)):
            draws = rng.normal(sample.mean(), sample.std(ddof=1), (400, n))
            share = np.mean([check.judge(table(x)).verdict == verdict for x in draws])
            assert share > 0.8 - rate(0.8, 400) if enough else share < 0.72


def test_what_is_shown_or_out_of_reach_needs_no_number() -> None:
    held = Matches("m", "a", to="b", margin=9.0).judge(Table(a=[1.0, 1.1, 0.9], b=[0.0] * 3))
    edge = Matches("m", "a", to="b", margin=1.0).judge(Table(a=[1.0, 2.0, 0.0], b=[0.0] * 3))
    assert (held.verdict, held.needed) == ("held", None)
    assert (edge.verdict, edge.needed) == ("not shown", None)


def test_the_mean_is_held_against_its_bounds() -> None:
    rng = np.random.default_rng(8)
    values = rng.normal(1.0, 0.02, 30)
    values[3] = 1.2  # one seed outside of the bound is no fault of the mean
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    outcome = OnAverage("m", "a", at_most=1.05).judge(Table(a=values))
    assert (outcome.verdict, outcome.low, outcome.high) == ("held", pytest.approx(low), pytest.approx(high))
    assert outcome.sentence == "m of a is at most 1.05 on average"
    assert OnAverage("m", "a", at_least=0.9, at_most=1.05).judge(Table(a=values)).verdict == "held"
    assert OnAverage("m", "a", at_least=1.1).judge(Table(a=values)).verdict == "refuted"
    assert OnAverage("m", "a", at_most=0.9).judge(Table(a=values)).verdict == "refuted"
    assert OnAverage("m", "a", at_most=values.mean()).judge(Table(a=values)).verdict == "not shown"
    assert Within("m", "a", at_most=1.05).judge(Table(a=values)).verdict == "refuted"
