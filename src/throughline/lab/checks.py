"""Checks: what a claim promises, tested over paired seeds with SciPy's Student t.

Each check turns the results of a claim into an `Outcome`: an estimate, its interval and one of three verdicts. *held*:
the interval lies wholly on the promised side. *refuted*: wholly on the other side. *not shown*: anything else, and
whatever chance cannot be judged by: fewer than three seeds, a number that is none, the same difference on every seed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from throughline.lab.statistics import FEWEST, alpha, equivalence_seeds, seeds_needed, t_interval

__all__ = [
    "Beats",
    "Check",
    "Costs",
    "Matches",
    "OnAverage",
    "Outcome",
    "Verdict",
    "Within",
]

Verdict = Literal["held", "refuted", "not shown"]


class Measured(Protocol):
    """What a check asks of results: a metric of one arm by seed, and how often some of the seeds were judged before."""

    @property
    def looks(self) -> int: ...
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
    needed: int | None = None  # seeds of a new run that would settle an effect of the size seen, either way


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
        first, second = (self.over, self.arm) if self.lower else (self.arm, self.over)
        confidence = 1 - alpha(results.looks)
        estimate, low, high = t_interval(gain, confidence)
        doubt = _doubt(self, seeds, {self.arm: ours, self.over: theirs}, gain)
        verdict = _side(low > self.margin, high <= self.margin, doubt)
        by = f" by more than {self.margin:g}" if self.margin else ""
        return Outcome(
            f"{self.arm} beats {self.over} in {self.metric}{' (lower is better)' if self.lower else ''}{by}",
            verdict,
            quantity=f"{self.metric}: {first} − {second}",
            estimate=estimate,
            low=low,
            high=high,
            confidence=confidence,
            seeds=seeds,
            points=tuple(gain.tolist()),
            bounds=(self.margin,),
            reason=doubt or f"{_span('difference', low, high, confidence)}, wanted above {self.margin:g}",
            needed=seeds_needed(gain - self.margin) if verdict == "not shown" and not doubt else None,
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
        confidence = 1 - 2 * alpha(results.looks)  # two one-sided tests at 5% are the 90% interval
        estimate, low, high = t_interval(difference, confidence)
        _, far_low, far_high = t_interval(difference, 1 - alpha(results.looks))  # to refute, it must lie outside
        inside, outside = -self.margin < low and high < self.margin, far_low > self.margin or far_high < -self.margin
        doubt = _doubt(self, seeds, {self.arm: ours, self.to: theirs}, difference)
        verdict = _side(inside, outside, doubt)
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
            reason=doubt or f"{_span('difference', low, high, confidence)}, wanted inside ±{self.margin:g}",
            needed=equivalence_seeds(difference, self.margin) if verdict == "not shown" and not doubt else None,
        )


@dataclass(frozen=True)
class Within:
    """``metric`` of ``arm`` stays inside a bound on *every* seed; one seed outside refutes it."""

    metric: str
    arm: str
    at_most: float | None = None
    at_least: float | None = None

    def __post_init__(self) -> None:
        _want_bound(self.at_most, self.at_least)

    @property
    def arms(self) -> tuple[str, ...]:
        return (self.arm,)

    def judge(self, results: Measured) -> Outcome:
        seeds, values = _single(results, self.metric, self.arm)
        floor, ceiling, bounds, named = _bounds(self.at_most, self.at_least)
        good = (values >= floor) & (values <= ceiling)  # a NaN is never inside
        few = _few(seeds)
        low, high = (float(values.min()), float(values.max())) if len(seeds) else (math.nan, math.nan)
        missed = [f"{seed} ({value:.4g})" for seed, value, fine in zip(seeds, values, good, strict=True) if not fine]
        reason = f"outside on seeds {', '.join(missed)}" if missed else f"all of {len(seeds)} seeds inside"
        return Outcome(
            f"{self.metric} of {self.arm} is {named} on every seed",
            _side(bool(good.all()), not good.all(), few),
            quantity=f"{self.metric} of {self.arm}",
            estimate=float(np.median(values)) if len(seeds) else math.nan,
            low=low,
            high=high,
            confidence=1.0,
            seeds=seeds,
            points=tuple(values.tolist()),
            bounds=bounds,
            reason=few or reason,
        )


@dataclass(frozen=True)
class OnAverage:
    """The mean of ``metric`` of ``arm`` over seeds lies inside a bound: the 95% t interval of the mean."""

    metric: str
    arm: str
    at_most: float | None = None
    at_least: float | None = None

    def __post_init__(self) -> None:
        _want_bound(self.at_most, self.at_least)

    @property
    def arms(self) -> tuple[str, ...]:
        return (self.arm,)

    def judge(self, results: Measured) -> Outcome:
        seeds, values = _single(results, self.metric, self.arm)
        floor, ceiling, bounds, named = _bounds(self.at_most, self.at_least)
        confidence = 1 - alpha(results.looks)
        estimate, low, high = t_interval(values, confidence)
        doubt = _doubt(self, seeds, {self.arm: values}, values)
        verdict = _side(floor <= low and high <= ceiling, low > ceiling or high < floor, doubt)
        nearest = min(bounds, key=lambda bound: abs(bound - estimate))
        return Outcome(
            f"{self.metric} of {self.arm} is {named} on average",
            verdict,
            quantity=f"{self.metric} of {self.arm}",
            estimate=estimate,
            low=low,
            high=high,
            confidence=confidence,
            seeds=seeds,
            points=tuple(values.tolist()),
            bounds=bounds,
            reason=doubt or f"{_span('mean', low, high, confidence)}, wanted {named}",
            needed=seeds_needed(values - nearest) if verdict == "not shown" and not doubt else None,
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
        logs = {arm: _log(values) for arm, values in ((self.arm, ours), (self.over, theirs))}
        ratio = logs[self.arm] - logs[self.over]
        confidence = 1 - alpha(results.looks)
        estimate, low, high = (math.exp(v) for v in t_interval(ratio, confidence))
        doubt = _doubt(self, seeds, {self.arm: ours, self.over: theirs}, ratio, rounding=1.0)
        verdict = _side(high <= self.at_most, low > self.at_most, doubt)
        return Outcome(
            f"{self.arm} costs at most {self.at_most:g} times the {self.metric} of {self.over}",
            verdict,
            quantity=f"{self.metric}: {self.arm} / {self.over}",
            estimate=estimate,
            low=low,
            high=high,
            confidence=confidence,
            seeds=seeds,
            points=tuple(np.exp(ratio).tolist()),
            bounds=(self.at_most,),
            reason=doubt or f"{_span('ratio', low, high, confidence)}, wanted at most {self.at_most:g}",
            needed=seeds_needed(ratio - math.log(self.at_most)) if verdict == "not shown" and not doubt else None,
        )


def _paired(results: Measured, metric: str, arm: str, other: str) -> tuple[tuple[int, ...], np.ndarray, np.ndarray]:
    ours, theirs = results.values(metric, arm), results.values(metric, other)
    seeds = tuple(sorted(ours.keys() & theirs.keys()))
    return seeds, np.array([ours[s] for s in seeds], dtype=float), np.array([theirs[s] for s in seeds], dtype=float)


def _single(results: Measured, metric: str, arm: str) -> tuple[tuple[int, ...], np.ndarray]:
    found = results.values(metric, arm)
    seeds = tuple(sorted(found))
    return seeds, np.array([found[seed] for seed in seeds], dtype=float)


def _log(values: np.ndarray) -> np.ndarray:
    """NaN where there is no logarithm, and so no ratio."""
    logs: np.ndarray = np.log(values, where=values > 0, out=np.full_like(values, np.nan))
    return logs


def _doubt(
    check: Check,
    seeds: tuple[int, ...],
    arms: Mapping[str, np.ndarray],
    sample: np.ndarray,
    rounding: float | None = None,
) -> str | None:
    """Why the sample says nothing about chance, if it does not: too few seeds, a number that is none, no spread.

    A spread in the last bits is none: in those of ``rounding``, or of the largest number that enters a difference.
    """
    for arm, values in arms.items():
        for seed, value, point in zip(seeds, values, sample, strict=True):
            if not math.isfinite(value) or (not math.isfinite(point) and value <= 0):
                return f"{check.metric} of {arm} is {value:g} on seed {seed}"
    if few := _few(seeds):
        return few
    size = max(np.abs(values).max() for values in arms.values()) if rounding is None else rounding
    if np.ptp(sample) <= 8 * np.finfo(float).eps * size:
        return f"every seed gives the same, {sample[0]:.4g}, which leaves nothing to judge chance by"
    return None


def _few(seeds: tuple[int, ...]) -> str | None:
    if len(seeds) >= FEWEST:
        return None
    return f"a verdict needs {FEWEST} seeds on which its arms have finished, got {len(seeds)}"


def _want_bound(at_most: float | None, at_least: float | None) -> None:
    if at_most is None and at_least is None:
        raise ValueError("at_most or at_least must be given, got neither")


def _bounds(at_most: float | None, at_least: float | None) -> tuple[float, float, tuple[float, ...], str]:
    """The floor, the ceiling, those of the two that there are, and both in words."""
    given = {"at least": at_least, "at most": at_most}
    named = " and ".join(f"{name} {bound:g}" for name, bound in given.items() if bound is not None)
    floor = -math.inf if at_least is None else at_least
    ceiling = math.inf if at_most is None else at_most
    return floor, ceiling, tuple(bound for bound in given.values() if bound is not None), named


def _side(right: bool, wrong: bool, doubt: str | None) -> Verdict:
    return "not shown" if doubt else "held" if right else "refuted" if wrong else "not shown"


def _span(what: str, low: float, high: float, confidence: float) -> str:
    return f"{100 * confidence:.5g}% interval of the {what} [{low:.4g}, {high:.4g}]"
