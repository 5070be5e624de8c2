"""Pictures of the rarts claim, from stored results."""

from typing import TYPE_CHECKING

import numpy as np

from throughline.claims.rarts.solvable import SOLUTION, START, limit
from throughline.claims.shared.cells.figures import option_color
from throughline.claims.shared.cells.loading import option_names
from throughline.lab import Results
from throughline.lab.plots import arm_color, first_kept, folded, paired_dots, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["costs", "plane", "weights"]

SHOWN = 8  # edges of a picture


def plane(results: Results) -> "Figure | None":
    """α and w of the solvable model, from the start to the limit of each arm; it is the same on every seed."""
    found = first_kept(results, "plane")
    if found is None:
        return None
    figure, axis = subplots(size=(6.4, 4.4))
    line = np.array([0.5, 2.6])
    axis.plot(line, line, color="0.5", linewidth=0.8, linestyle="--", label="w = α, the best weights")
    axis.plot(*SOLUTION, "*", color="0.5", markersize=15, label="bilevel solution")
    axis.plot(*START, "o", color="0.5", markersize=5)
    axis.annotate("start", START, (6, -2), textcoords="offset points", fontsize=8, color="0.5")
    for arm, kept in found[1].items():
        color, course = arm_color(results, arm), kept["plane"]
        axis.plot(course[:, 0], course[:, 1], color=color, label=arm.replace("_", " "), linewidth=1.3)
        axis.plot(*limit(arm)[:2], "x", color=color, markersize=8, markeredgewidth=2)
    axis.set(xlabel="α", ylabel="w")
    axis.legend(loc="upper left")
    return figure


def weights(results: Results) -> "Figure | None":
    """softmax(α) of the first edges, a row for DARTS of first order and one for RARTS."""
    found = first_kept(results, "shares", [arm for arm in ("darts_first", "rarts") if arm in results.arms])
    if found is None:
        return None
    names = dict(list(option_names(results.config).items())[:SHOWN])
    figure, axes = subplots(
        len(found[1]), len(names), size=(1.45 * len(names) + 0.6, 1.7 * len(found[1]) + 0.6), squeeze=False, sharey=True
    )
    for row, (arm, kept) in zip(axes, found[1].items(), strict=True):
        for place, (axis, (name, options)) in enumerate(zip(row, names.items(), strict=True)):
            for k, option in enumerate(options):
                axis.plot(kept["shares"][:, place, k], color=option_color(option), linewidth=1.2)
            to, _, since = name.rpartition(".")[2].partition("_")
            axis.set_title(f"{since} → {to}")
            axis.set_xlim(0, len(kept["shares"]) - 1)
        row[0].set_ylabel(folded(arm, 12), color=arm_color(results, arm))
    for option in dict.fromkeys(option for options in names.values() for option in options):
        axes[0, 0].plot([], [], color=option_color(option), label=option.replace("_", " "))
    figure.supxlabel(f"epoch (seed {found[0]})", fontsize=9)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    return figure


def costs(results: Results) -> "Figure | None":
    """A step of each arm that searches, in steps of the baseline."""
    shown = [arm for arm in results.arms if results.values("step_cost", arm)]
    return paired_dots(results, "step_cost", shown, label="time of a step") if shown else None
