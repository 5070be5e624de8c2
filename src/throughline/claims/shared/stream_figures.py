"""Pictures of claims about streams of tasks with classes of their own, from stored results."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from throughline.lab import Results
from throughline.lab.plots import BASELINE, draw_bands, kept_by_arm, matrices, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["accuracy_by_task", "course"]


def course(results: Results) -> "Figure | None":
    """The curve "accuracy", on all classes after each task, and what can be known by then."""
    figure, axis = subplots(size=(7.8, 3.6))
    draw_bands(axis, results, "accuracy")
    if not axis.lines:
        return None
    for line in axis.lines:
        line.set_marker("o")
        line.set_markersize(3.5)
    last = max(int(np.max(np.asarray(line.get_xdata()))) for line in axis.lines)
    axis.plot([1, last], [1 / last, 1], color=BASELINE, linewidth=0.9, linestyle=":", label="all that was shown so far")
    axis.set_xticks(range(1, last + 1))
    axis.set_xlabel("tasks learned")
    axis.set_ylabel("accuracy on all classes")
    axis.set_ylim(0, 1.02)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def accuracy_by_task(results: Results, arms: Sequence[str]) -> "Figure | None":
    """The array "tasks", accuracy after each task (rows) on each task (columns): the mean over seeds, by arm."""
    kept = kept_by_arm(results, "tasks", arms)
    if not kept:
        return None
    panels = {}
    for arm, seeds in kept.items():
        mean = np.mean([arrays["tasks"] for arrays in seeds], 0)
        later = np.triu(np.ones_like(mean), 1) > 0  # nothing to know yet
        panels[textwrap.fill(arm.replace("_", " "), 14)] = np.ma.masked_where(later, mean)
    figure, axes = matrices(panels, size=(1.9 * len(panels) + 0.8, 2.6), high=1, label="accuracy")
    for axis, mean in zip(axes, panels.values(), strict=True):
        places = range(len(mean))
        axis.set_xticks(places, [str(place + 1) for place in places])
        axis.set_yticks(places, [str(place + 1) for place in places])
        axis.set_xlabel("tested on task")
    axes[0].set_ylabel("after task")
    return figure
