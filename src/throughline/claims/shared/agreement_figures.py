"""How estimates agree with the truth, a panel for each arm and part of the data, from stored results."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from throughline.lab import Results
from throughline.lab.plots import arm_color, kept_by_arm, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Draw = Callable[[Axes, np.ndarray, np.ndarray, str], None]

__all__ = ["bland_altman", "estimates"]


def estimates(results: Results, parts: Mapping[str, str], unit: str, limits: tuple[float, float]) -> "Figure | None":
    """Estimated against true values of all seeds, over the diagonal between ``limits``.

    Args:
        parts: for each array ``(2, n)`` of true and estimated values that units keep, what it is of.
        unit: of the values.
    """

    def draw(axis: "Axes", true: np.ndarray, found: np.ndarray, color: str) -> None:
        axis.plot(limits, limits, color="0.6", linewidth=0.8)
        axis.plot(true, found, ".", color=color, markersize=3, alpha=0.6)

    return _panels(results, parts, draw, f"true {unit}", f"estimated {unit}")


def bland_altman(results: Results, parts: Mapping[str, str], unit: str) -> "Figure | None":
    """Error against the mean of truth and estimate, with bias and limits of agreement; arguments as of `estimates`."""

    def draw(axis: "Axes", true: np.ndarray, found: np.ndarray, color: str) -> None:
        error = found - true
        axis.plot((true + found) / 2, error, ".", color=color, markersize=3, alpha=0.6)
        bias, spread = float(error.mean()), float(error.std())
        axis.axhline(bias, color="0.5", linewidth=1.0)
        for limit in (bias - 1.96 * spread, bias + 1.96 * spread):
            axis.axhline(limit, color="0.5", linewidth=0.8, linestyle="--")

    return _panels(results, parts, draw, f"mean of true and estimated {unit}", f"error in {unit}")


def _panels(results: Results, parts: Mapping[str, str], draw: "Draw", xlabel: str, ylabel: str) -> "Figure | None":
    kept = kept_by_arm(results, next(iter(parts)))
    if not kept:
        return None
    size = (1.55 * len(kept) + 0.8, 1.95 * len(parts))
    figure, axes = subplots(len(parts), len(kept), size=size, squeeze=False, sharex=True, sharey=True)
    for row, (name, words) in zip(axes, parts.items(), strict=True):
        for axis, (arm, runs) in zip(row, kept.items(), strict=True):
            true, estimated = np.concatenate([run[name] for run in runs], 1)
            draw(axis, true, estimated, arm_color(results, arm))
        row[0].set_ylabel(f"{words}\n{ylabel}", fontsize=7)
    for axis, arm in zip(axes[0], kept, strict=True):
        axis.set_title(arm.replace("_", " "))
    figure.supxlabel(xlabel, fontsize=9)
    return figure
