"""Intervals over seeds by Student's t, what each look at a run may err, and how many seeds an effect wants."""

import bisect
import math
from collections.abc import Callable

import numpy as np
import scipy

__all__ = ["FEWEST", "alpha", "equivalence_seeds", "seeds_needed", "t_interval"]

ALPHA = 0.05
LATER = 0.01  # what all looks after the first share
POWER = 0.8
FEWEST = 3  # seeds of a verdict


def alpha(looks: int) -> float:
    """The error that a verdict may make when ``looks`` verdicts over some of its seeds were seen before.

    The first look spends 5%. All later ones share one percent more, each half of what is left, so that however often a
    run is widened and looked at again, at most 6% of the runs without an effect end in a verdict for one.

    >>> alpha(0), alpha(1), alpha(2)
    (0.05, 0.005, 0.0025)
    """
    return ALPHA if looks == 0 else LATER / 2**looks


def t_interval(sample: np.ndarray, confidence: float = 1 - ALPHA) -> tuple[float, float, float]:
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
    """Seeds with which a paired t test shows an effect as large as the sample's, in its direction, with that power.

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
        threshold = scipy.stats.t.ppf(1 - ALPHA / 2, n - 1)
        reached = scipy.stats.nct.sf(threshold, n - 1, abs(mean) / spread * math.sqrt(n))
        return not reached < power  # SciPy gives NaN where the power is 1 to the last digit

    return _smallest(enough, most)


def equivalence_seeds(difference: np.ndarray, margin: float, most: int = 10_000) -> int | None:
    """Seeds that show the difference inside of the margin, or outside, wherever the mean lies."""
    size = abs(float(difference.mean()))
    if size >= margin:
        return seeds_needed(np.sign(difference.mean()) * difference - margin)
    spread = float(difference.std(ddof=1))

    def enough(n: int) -> bool:
        t = scipy.stats.t(n - 1)
        return float(t.ppf(1 - ALPHA) + t.ppf((1 + POWER) / 2)) * spread / math.sqrt(n) <= margin - size

    return _smallest(enough, most)


def _smallest(enough: Callable[[int], bool], most: int) -> int | None:
    """The smallest n from `FEWEST` to ``most`` that is enough, where every larger one is enough too."""
    n = FEWEST + bisect.bisect_left(range(FEWEST, most + 1), True, key=enough)
    return n if n <= most else None
