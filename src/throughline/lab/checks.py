"""Checks: what a claim promises, tested over paired seeds with SciPy's Student t.

Each check turns the results of a claim into an `Outcome`: an estimate, its interval and one of three verdicts. *held*:
the interval lies wholly on the promised side. *refuted*: wholly on the other side. *not shown*: anything else.
"""

import bisect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import scipy

__all__ = ["Beats", "Check", "Costs", "Matches", "Outcome", "Verdict", "Within", "seeds_needed", "t_interval"]

Verdict = Literal["held", "refuted", "not shown"]
CONFIDENCE = 0.95
POWER = 0.8


class Measured(Protocol):
    """The one thing that a check asks of results: a metric of one arm, by seed."""

    def values(self, metric: str, arm: str) -> Mapping[int, float]: ...


@dataclass(frozen=True)
class Outcome:
    """What a check found: its sentence and verdict, the estimate with its interval, and the seeds behind it."""

    sentence: str
    verdict: Verdict
    quantity: str  # what was estimated
    estimate: float
    low: float
    high: float
    confidence: float  # of the interval; 1 where it is simply the range over the seeds
    seeds: tuple[int, ...]
    points: tuple[float, ...]  # the quantity on each seed
    bounds: tuple[float, ...]  # where the promise begins
    reason: str
    needed: int | None = None  # seeds that would show an effect of the size seen, where it was not shown


class Check(Protocol):
    """A statistical promise about one metric of named arms."""

    @property
    def metric(self) -> str: ...
    @property
    def arms(self) -> tuple[str, ...]: ...
    def judge(self, results: Measured) -> Outcome: ...


@dataclass(frozen=True)
class Beats:
    """``arm`` is better than ``over`` by more than ``margin``: the 95% paired-t interval of the per-seed difference.

    Args:
        metric: the name of a metric that the claim returns; larger is better unless ``lower``.
        arm: the arm that should win.
        over: the arm that it is compared with.
        margin: by how much, in the metric's own unit; 0 asks for any difference.
        lower: smaller values are better (an error, a loss).
    """

    metric: str
    arm: str
    over: str
    margin: float = 0.0
    lower: bool = False

    @property
    def arms(self) -> tuple[str, ...]:
        return (self.over, self.arm)

    def judge(self, results: Measured) -> Outcome:
        seeds, ours, theirs = _paired(results, self.metric, self.arm, self.over)
        gain = theirs - ours if self.lower else ours - theirs
        estimate, low, high = t_interval(gain)
        verdict = _side(low > self.margin, high <= self.margin)
        by = f" by more than {self.margin:g}" if self.margin else ""
        sentence = f"{self.arm} beats {self.over} in {self.metric}{' (lower is better)' if self.lower else ''}{by}"
        return Outcome(
            sentence,
            verdict,
            quantity=f"{self.metric}: {self.over} − {self.arm}"
            if self.lower
            else f"{self.metric}: {self.arm} − {self.over}",
            estimate=estimate,
            low=low,
            high=high,
            confidence=CONFIDENCE,
            seeds=seeds,
            points=tuple(gain.tolist()),
            bounds=(self.margin,),
            reason=_reason(
                seeds, f"95% interval of the difference [{low:.4g}, {high:.4g}], wanted above {self.margin:g}"
            ),
            needed=seeds_needed(gain - self.margin) if verdict == "not shown" else None,
        )


@dataclass(frozen=True)
class Matches:
    """``arm`` equals ``to`` within ``margin``: two one-sided t tests at 5% (a 90% interval inside the margin)."""

    metric: str
    arm: str
    to: str
    margin: float

    def __post_init__(self) -> None:
        if not 0 < self.margin < math.inf:
            raise ValueError(f"margin must be positive and finite, got {self.margin}")

    @property
    def arms(self) -> tuple[str, ...]:
        return (self.to, self.arm)

    def judge(self, results: Measured) -> Outcome:
        seeds, ours, theirs = _paired(results, self.metric, self.arm, self.to)
        difference = ours - theirs
        confidence = 2 * CONFIDENCE - 1  # two one-sided tests at 5% are the 90% interval
        estimate, low, high = t_interval(difference, confidence)
        _, far_low, far_high = t_interval(difference)  # to refute, the two-sided 95% interval must lie outside
        inside, outside = -self.margin < low and high < self.margin, far_low > self.margin or far_high < -self.margin
        verdict = _side(inside, outside)
        room = self.margin - abs(estimate)
        return Outcome(
            f"{self.arm} matches {self.to} in {self.metric} within {self.margin:g}",
            verdict,
            quantity=f"{self.metric}: {self.arm} − {self.to}",
            estimate=estimate,
            low=low,
            high=high,
            confidence=confidence,
            seeds=seeds,
            points=tuple(difference.tolist()),
            bounds=(-self.margin, self.margin),
            reason=_reason(
                seeds, f"90% interval of the difference [{low:.4g}, {high:.4g}], wanted inside ±{self.margin:g}"
            ),
            needed=_equivalence_seeds(difference, room) if verdict == "not shown" and room > 0 else None,
        )


@dataclass(frozen=True)
class Within:
    """``metric`` of ``arm`` stays inside a bound on *every* seed; one seed outside refutes it."""

    metric: str
    arm: str
    at_most: float | None = None
    at_least: float | None = None

    def __post_init__(self) -> None:
        if self.at_most is None and self.at_least is None:
            raise ValueError("at_most or at_least must be given, got neither")

    @property
    def arms(self) -> tuple[str, ...]:
        return (self.arm,)

    def judge(self, results: Measured) -> Outcome:
        found = results.values(self.metric, self.arm)
        seeds = tuple(sorted(found))
        values = np.array([found[seed] for seed in seeds], dtype=float)
        floor = -math.inf if self.at_least is None else self.at_least
        ceiling = math.inf if self.at_most is None else self.at_most
        good = (values >= floor) & (values <= ceiling)  # a NaN is never inside
        verdict = _side(bool(seeds) and bool(good.all()), not good.all())
        named = {"at least": self.at_least, "at most": self.at_most}
        bounds = [f"{name} {bound:g}" for name, bound in named.items() if bound is not None]
        low, high = (float(values.min()), float(values.max())) if len(seeds) else (math.nan, math.nan)
        missed = [seed for seed, inside in zip(seeds, good, strict=True) if not inside]
        reason = f"outside on seeds {', '.join(map(str, missed))}" if missed else f"all of {len(seeds)} seeds inside"
        return Outcome(
            f"{self.metric} of {self.arm} is {' and '.join(bounds)} on every seed",
            verdict,
            quantity=f"{self.metric} of {self.arm}",
            estimate=float(np.median(values)) if len(seeds) else math.nan,
            low=low,
            high=high,
            confidence=1.0,
            seeds=seeds,
            points=tuple(values.tolist()),
            bounds=tuple(b for b in (self.at_least, self.at_most) if b is not None),
            reason=reason if seeds else "no seed has finished",
        )


@dataclass(frozen=True)
class Costs:
    """``metric`` (time, memory) of ``arm`` is at most ``at_most`` times that of ``over``: a log-ratio t interval."""

    metric: str
    arm: str
    over: str
    at_most: float

    def __post_init__(self) -> None:
        if not 0 < self.at_most < math.inf:
            raise ValueError(f"at_most must be positive and finite, got {self.at_most}")

    @property
    def arms(self) -> tuple[str, ...]:
        return (self.over, self.arm)

    def judge(self, results: Measured) -> Outcome:
        seeds, ours, theirs = _paired(results, self.metric, self.arm, self.over)
        positive = (ours > 0) & (theirs > 0)
        ratio = np.log(ours, where=positive, out=np.full_like(ours, np.nan))
        ratio -= np.log(theirs, where=positive, out=np.full_like(theirs, np.nan))  # no ratio, no verdict: NaN says so
        estimate, low, high = (math.exp(v) for v in t_interval(ratio))
        verdict = _side(high <= self.at_most, low > self.at_most)
        return Outcome(
            f"{self.arm} costs at most {self.at_most:g} times the {self.metric} of {self.over}",
            verdict,
            quantity=f"{self.metric}: {self.arm} / {self.over}",
            estimate=estimate,
            low=low,
            high=high,
            confidence=CONFIDENCE,
            seeds=seeds,
            points=tuple(np.exp(ratio).tolist()),
            bounds=(self.at_most,),
            reason=_reason(
                seeds, f"95% interval of the ratio [{low:.3g}, {high:.3g}], wanted at most {self.at_most:g}"
            ),
            needed=seeds_needed(ratio - math.log(self.at_most)) if verdict == "not shown" else None,
        )


def t_interval(sample: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Mean of ``sample`` (n,) with its Student-t interval; with fewer than two values the interval is the whole line.

    >>> t_interval(np.array([1.0, 2.0, 3.0]))
    (2.0, -0.484..., 4.484...)
    """
    n = len(sample)
    if n == 0 or not np.isfinite(sample).all():
        return math.nan, -math.inf, math.inf
    mean = float(sample.mean())
    if n == 1:
        return mean, -math.inf, math.inf
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, n - 1) * sample.std(ddof=1) / math.sqrt(n))
    return mean, mean - half, mean + half


def seeds_needed(sample: np.ndarray, power: float = POWER, most: int = 10_000) -> int | None:
    """Seeds with which a paired t test shows an effect as large as the sample's, with the given power.

    None when nothing can be said: fewer than two values, no effect, no spread, or more than ``most``.

    >>> seeds_needed(np.array([0.0, 2.0, 1.0]))  # an effect of one standard deviation
    10
    """
    if len(sample) < 2 or not np.isfinite(sample).all():
        return None
    mean, spread = float(sample.mean()), float(sample.std(ddof=1))
    if spread == 0 or mean == 0:
        return None

    def enough(n: int) -> bool:
        threshold = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)
        reached = scipy.stats.nct.sf(threshold, n - 1, abs(mean) / spread * math.sqrt(n))
        return not reached < power  # SciPy gives NaN where the power is 1 to the last digit

    return _smallest(enough, most)


def _equivalence_seeds(difference: np.ndarray, room: float, most: int = 10_000) -> int | None:
    if len(difference) < 2:
        return None
    spread = float(difference.std(ddof=1))

    def enough(n: int) -> bool:
        t = scipy.stats.t(n - 1)
        return float(t.ppf(CONFIDENCE) + t.ppf((1 + POWER) / 2)) * spread / math.sqrt(n) <= room

    return _smallest(enough, most)


def _smallest(enough: Callable[[int], bool], most: int) -> int | None:
    """The smallest n from 2 to ``most`` that is enough, where every larger one is enough too."""
    n = 2 + bisect.bisect_left(range(2, most + 1), True, key=enough)
    return n if n <= most else None


def _paired(results: Measured, metric: str, arm: str, other: str) -> tuple[tuple[int, ...], np.ndarray, np.ndarray]:
    ours, theirs = results.values(metric, arm), results.values(metric, other)
    seeds = tuple(sorted(ours.keys() & theirs.keys()))
    return seeds, np.array([ours[s] for s in seeds], dtype=float), np.array([theirs[s] for s in seeds], dtype=float)


def _side(right: bool, wrong: bool) -> Verdict:
    return "held" if right else "refuted" if wrong else "not shown"


def _reason(seeds: tuple[int, ...], text: str) -> str:
    if len(seeds) < 2:
        return f"an interval needs two seeds with both arms finished, got {len(seeds)}"
    return text
