"""Pictures of the darts-pt claim, from stored results."""

from typing import TYPE_CHECKING

import numpy as np

from throughline.claims.shared.cells.figures import option_color
from throughline.claims.shared.cells.loading import option_names
from throughline.lab import Results
from throughline.lab.plots import arm_color, draw_band, kept_by_arm, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["course", "removals"]

COLUMNS = 6


def removals(results: Results) -> "Figure | None":
    """Weight against accuracy after removal in a panel for each choice, all seeds; what was kept has a ring."""
    kept = kept_by_arm(results, "removed", ("perturbation",) if "perturbation" in results.arms else ())
    if not kept:
        return None
    names = option_names(results.config)
    columns = min(COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure, axes = subplots(rows, columns, size=(1.75 * columns, 1.9 * rows + 0.5), squeeze=False, sharey=True)
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    for place, (axis, (name, options)) in enumerate(zip(axes.flat, names.items(), strict=False)):
        for arrays in kept["perturbation"]:
            share, removed = arrays["share"][place], arrays["removed"][place]
            for k, option in enumerate(options):
                axis.plot(share[k], removed[k], "o", color=option_color(option), markersize=3.5, alpha=0.8)
            chosen = int(np.nanargmin(removed))
            axis.plot(share[chosen], removed[chosen], "o", color="0.5", markersize=8, fillstyle="none")
        to, _, since = name.rpartition(".")[2].partition("_")
        axis.set_title(f"{since} → {to}" if name.startswith("edge.") else f"{name.partition('.')[0]} {since} → {to}")
    for option in dict.fromkeys(option for options in names.values() for option in options):
        axes[0, 0].plot([], [], "o", color=option_color(option), markersize=4, label=option.replace("_", " "))
    axes[0, 0].plot([], [], "o", color="0.5", markersize=8, fillstyle="none", label="kept: its removal costs most")
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy without it")
    for axis in axes[-1]:
        axis.set_xlabel("weight")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def course(results: Results) -> "Figure | None":
    """Accuracy after each decision, and after the tuning behind it."""
    kept = kept_by_arm(results, "course", [arm for arm in results.arms if arm != "magnitude"])
    if not kept:
        return None
    figure, axis = subplots(size=(6.8, 3.6))
    for arm, seeds in kept.items():
        runs = np.stack([arrays["course"] for arrays in seeds])
        steps = np.concatenate([[0], np.arange(2, runs.shape[1] + 1) / 2])  # 0, 1, 1.5, 2, 2.5, …
        draw_band(axis, steps, runs, arm_color(results, arm), arm.replace("_", " "))
    axis.set(xlabel="decisions; half a step on, after tuning", ylabel="validation accuracy of the supernet")
    axis.legend(frameon=False)
    return figure
