"""Small drawings of intervals: where the estimate, its interval and the bounds of a promise lie on a line."""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from throughline.report.board.findings import Check
from throughline.report.rendering import number

__all__ = ["WIDTH", "Drawing", "drawings", "figures"]

WIDTH, MARGIN = 132, 8
DECADES = 1e3  # positive numbers that span more are drawn by their logarithms, and ratios always


class Drawing(NamedTuple):
    """Places in pixels from the left; None for what there is not."""

    estimate: float | None
    low: float | None
    high: float | None
    bounds: tuple[float, ...]
    zero: float | None  # where it lies inside and is no bound


class Scale(NamedTuple):
    """A line from ``first`` to ``last``, by logarithms or not."""

    first: float
    last: float
    log: bool

    @classmethod
    def over(cls, values: Sequence[float], *, ratio: bool) -> "Scale":
        least, most = min(values), max(values)
        log = least > 0 and (ratio or most / least > DECADES)
        return cls(math.log(least), math.log(most), True) if log else cls(least, most, False)

    def place(self, value: float) -> float:
        value, span = math.log(value) if self.log else value, self.last - self.first
        if span == 0:
            return WIDTH / 2
        return round(MARGIN + (WIDTH - 2 * MARGIN) * (value - self.first) / span, 2)


def drawings(checks: Sequence[Check]) -> list[Drawing | None]:
    """A drawing for each check that has an estimate; those of one metric with the same bounds share a scale."""
    drawn: dict[int, Drawing] = {}
    kinds = sorted((_kind(check), place) for place, check in enumerate(checks) if check.estimate is not None)
    for (_, sign, _), group in groupby(kinds, key=lambda pair: pair[0]):
        members = {place: checks[place] for _, place in group}
        values = [value for check in members.values() for value in _values(check)]
        scale = Scale.over(values, ratio=sign == "/")
        if math.isfinite(scale.last - scale.first):
            drawn |= {place: _drawing(check, scale) for place, check in members.items()}
    return [drawn.get(place) for place in range(len(checks))]


def figures(check: Check) -> tuple[str, str]:
    """Estimate and interval in figures, with as many decimals as the width of the interval deserves.

    >>> figures(Check(sentence="", verdict="held", estimate=0.031570, low=-0.001248, high=0.041893))
    ('0.032', '−0.001, 0.042')
    """
    ends = [value for value in (check.low, check.high) if value is not None]
    known = ends if check.estimate is None else [check.estimate, *ends]
    width = ends[1] - ends[0] if len(ends) == 2 else 0.0
    interval = ", ".join(_figure(value, known, width) for value in (check.low, check.high)) if ends else ""
    return _figure(check.estimate, known, width), interval


def _figure(value: float | None, known: Sequence[float], width: float) -> str:
    if value is None:
        return "–"
    largest = max(map(abs, known))
    decimals = max(0, 1 - math.floor(math.log10(width))) if 0 < width < math.inf else None
    if largest and not 1e-3 < largest < 1e6:
        text = f"{value:.3g}"
    elif decimals is None or decimals > 6:
        text = number(value)
    else:
        text = f"{round(value, decimals) + 0.0:.{decimals}f}"  # adding nothing turns −0 into 0
    return text.replace("-", "−")


def _drawing(check: Check, scale: Scale) -> Drawing:
    estimate, low, high = (None if v is None else scale.place(v) for v in (check.estimate, check.low, check.high))
    inside = not scale.log and scale.first < 0 < scale.last and 0 not in check.bounds
    bounds = tuple(scale.place(bound) for bound in check.bounds)
    return Drawing(estimate, low, high, bounds, scale.place(0.0) if inside else None)


def _values(check: Check) -> Iterator[float]:
    yield from (value for value in (check.estimate, check.low, check.high) if value is not None)
    yield from check.bounds


def _kind(check: Check) -> tuple[str, str, list[float]]:
    """The metric of a quantity (``m: a − b``, ``m: a / b``, ``m of a``), what is done to it, and its bounds."""
    metric, colon, arms = check.quantity.partition(": ")
    if not colon:
        return check.quantity.rpartition(" of ")[0], "of", check.bounds
    return metric, "/" if " / " in arms else "−", check.bounds
