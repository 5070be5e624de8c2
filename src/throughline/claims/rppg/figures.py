"""Pictures of the rppg claim, from stored results."""

from typing import TYPE_CHECKING

import numpy as np

from throughline.claims.rppg.data import STRENGTHS
from throughline.lab import Results
from throughline.lab.plots import arm_color, kept_by_arm, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["difficulty"]


def difficulty(results: Results) -> "Figure | None":
    """Mean error against the strength of motion and of light, over all seeds."""
    kept = kept_by_arm(results, "motion")
    if not kept:
        return None
    figure, axes = subplots(1, 2, size=(7.2, 3.2), sharey=True)
    for axis, name in zip(axes, ("motion", "light"), strict=True):
        for arm, runs in kept.items():
            mean = np.mean([run[name] for run in runs], 0)
            axis.plot(STRENGTHS, mean, "o-", color=arm_color(results, arm), markersize=3.5, label=arm)
        axis.set(xlabel=f"strength of {name}", ylim=(0, None))
    axes[0].set_ylabel("mean absolute error in bpm")
    axes[1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
