"""Pictures of the AnyLoss claim, from stored results."""

from typing import TYPE_CHECKING

import numpy as np

from throughline.lab import Results
from throughline.lab.plots import BASELINE, arm_color, kept_by_arm, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["SHOWN", "amplification", "by_data_set"]

CURVE = "#c9a227"  # of A(p)
SHOWN = ("bce", "mse", "metric_f1", "metric_balanced_accuracy", "soft_f1", "bce_threshold")


def by_data_set(results: Results) -> "Figure | None":
    """A dot per arm and data set, with a line from cross-entropy to the arm that trains on the metric."""
    kept = kept_by_arm(results, "names")
    if not kept:
        return None
    names, share = (next(iter(kept.values()))[0][name] for name in ("names", "share"))
    order = np.argsort(share)[::-1]
    figure, axes = subplots(1, 2, size=(8.4, 0.34 * len(names) + 1.7), sharey=True)
    for axis, metric in zip(axes, ("f1", "balanced_accuracy"), strict=True):
        aimed = f"metric_{metric}"
        means = {arm: np.mean([k[metric] for k in kept[arm]], 0) for arm in SHOWN if arm in kept}
        if "bce" in means and aimed in means:
            axis.hlines(range(len(names)), means["bce"][order], means[aimed][order], color=BASELINE, alpha=0.6)
        for arm, values in means.items():
            look = {"markersize": 6.5} if arm in ("bce", aimed) else {"markersize": 4, "alpha": 0.55}
            label = arm.replace("_", " ")
            axis.plot(values[order], range(len(names)), "o", color=arm_color(results, arm), label=label, **look)
        axis.set_xlabel(metric.replace("_", " "))
        axis.grid(axis="x", color=BASELINE, alpha=0.25)
    axes[0].set_yticks(range(len(names)), [f"{names[i]} ({share[i]:.0%})" for i in order])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def amplification(results: Results) -> "Figure | None":
    """A(p) for three amplifications over the histograms of bce and metric_f1."""
    kept = kept_by_arm(results, "shape")
    if not kept:
        return None
    figure, axis = subplots(size=(6.4, 3.4))
    for arm in (arm for arm in ("bce", "metric_f1") if arm in kept):
        mean = np.mean([k["shape"] for k in kept[arm]], axis=0)
        edges = np.linspace(0, 1, len(mean) + 1)
        axis.stairs(mean, edges, fill=True, color=arm_color(results, arm), alpha=0.45, label=arm.replace("_", " "))
    axis.set(xlabel="predicted probability p", ylabel="share of the test rows")
    axis.legend(loc="upper left", bbox_to_anchor=(0.08, 1.0), frameon=False)
    _amplified(axis.twinx())
    return figure


def _amplified(axis: "Axes") -> None:
    p = np.linspace(0, 1, 401)
    for steepness, style in ((10, ":"), (33, "--"), (73, "-")):
        value = 1 / (1 + np.exp(-steepness * (p - 0.5)))
        axis.plot(p, value, style, color=CURVE, linewidth=1.4, label=f"L = {steepness}")
    axis.set_ylabel("A(p)")
    axis.patch.set_alpha(0)
    axis.legend(loc="center right", frameon=False)
