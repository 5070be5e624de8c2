"""The two pictures of the benchmarks' page."""

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.growth import Grown
from benchmarks.harness import Result
from throughline.lab.plots import BASELINE, PALETTE, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["growths", "ratios"]

COLUMNS = 4
KINDS = {
    "same work": (PALETTE[1], "o"),
    "less work": (PALETTE[0], "D"),
    "other work": (PALETTE[3], "s"),
    "floor": (BASELINE, "^"),
}


def ratios(results: list[Result]) -> "Figure":
    """One dot a case: our time over the reference's, a row for each paper."""
    slugs = list(dict.fromkeys(r.paper for r in results))[::-1]
    figure, axis = subplots(size=(7.6, 0.6 + 0.3 * len(slugs)))
    for kind, (color, marker) in KINDS.items():
        own = [r for r in results if r.kind == kind]
        x = [r.ratio.median if r.ratio else 1 / (r.share or float("nan")) for r in own]
        axis.scatter(
            x, [slugs.index(r.paper) for r in own], s=26, c=color, marker=marker, alpha=0.8, linewidths=0, label=kind
        )
    axis.axvline(1, color=BASELINE, linewidth=1)
    axis.set(
        xscale="log", xlabel="our time over the reference's (left of the line we are faster)", yticks=range(len(slugs))
    )
    axis.set_yticklabels(slugs)
    axis.grid(axis="x", alpha=0.25)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=len(KINDS))
    return figure


def growths(found: list[Grown]) -> "Figure":
    """Small multiples: seconds and gibibytes over the size, with the promised slopes through the last point."""
    rows = -(-len(found) // COLUMNS)
    figure, axes = subplots(rows, COLUMNS, size=(2.6 * COLUMNS, 2.1 * rows), squeeze=False)
    for axis, g in zip(axes.flat, found, strict=False):
        sizes = np.array(g.sizes, dtype=float)
        lines = (
            ("seconds", np.array(g.seconds), g.promised_time, PALETTE[0]),
            ("GiB", np.array(g.bytes) / 2**30, g.promised_memory, PALETTE[1]),
        )
        for label, values, promised, color in lines:
            axis.plot(sizes, values, "o-", color=color, markersize=3, label=label)
            axis.plot(sizes, values[-1] * (sizes / sizes[-1]) ** promised, "--", color=color, alpha=0.5, linewidth=1)
        axis.set(xscale="log", yscale="log", xlabel=g.axis)
        axis.set_xticks(ends := [g.sizes[0], g.sizes[-1]], [f"{size:,}" for size in ends])
        axis.minorticks_off()
        axis.set_title(f"{g.paper}\n{textwrap.fill(g.name.split(',')[0], 30)}", fontsize=8)
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    if found:
        axes.flat[0].plot([], [], "--", color=BASELINE, linewidth=1, label="promised")
        figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure
