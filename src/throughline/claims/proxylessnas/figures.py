"""Pictures of the proxylessnas claim, from stored results."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from throughline.lab import Results
from throughline.lab.plots import BASELINE, PALETTE, arm_color, draw_band, first_kept, folded, kept_by_arm, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["memory", "pareto", "predicted", "probabilities"]

RATIO, ACCURACY, PREDICTED, MEASURED = range(4)  # columns of a point
OPTIONS = (*(f"k{kernel}e{expansion}" for kernel in (3, 5, 7) for expansion in (3, 6)), "zero")
COLORS = (*PALETTE[:6], BASELINE)
MOST = 6  # blocks that are drawn


def pareto(results: Results) -> "Figure | None":
    """Accuracy against latency of every network that was trained."""
    figure, axis = subplots(size=(6.4, 3.8))
    for arm, points in _points(results):
        drawn = arm in results.claim.context
        axis.plot(
            points[:, RATIO],
            points[:, ACCURACY],
            "." if drawn else "o",
            color=BASELINE if drawn else arm_color(results, arm),
            fillstyle="full" if arm != results.claim.arms[0] else "none",
            alpha=0.8,
            label=arm.replace("_", " "),
        )
    if not axis.lines:
        return None
    axis.set(xlabel="latency, of the network with k3e3 in every block", ylabel="test accuracy")
    axis.legend()
    return figure


def predicted(results: Results) -> "Figure | None":
    """The table's latency against that of the whole network, in milliseconds."""
    figure, axis = subplots(size=(4.6, 3.8))
    for arm, points in _points(results):
        axis.plot(points[:, PREDICTED], points[:, MEASURED], "o", color=arm_color(results, arm), alpha=0.7)
        axis.lines[-1].set_label(arm.replace("_", " "))
    if not axis.lines:
        return None
    most = max(line.get_xydata().max() for line in axis.lines)
    axis.plot([0, most], [0, most], "--", color="0.6", linewidth=0.8)
    axis.set(xlabel="by the table, ms", ylabel="of the whole network, ms", xlim=(0, None), ylim=(0, None))
    axis.legend()
    return figure


def memory(results: Results) -> "Figure | None":
    """Bytes kept for the backward pass against the number of candidates of a layer."""
    kept = kept_by_arm(results, "bytes", [arm for arm in results.claim.arms[:2] if arm in results.arms])
    if not kept:
        return None
    figure, axis = subplots(size=(5.4, 3.4))
    for arm, seeds in kept.items():
        runs = np.stack([seed["bytes"] for seed in seeds]) / 2**20
        counts = np.arange(1, runs.shape[1] + 1)
        draw_band(axis, counts, runs, arm_color(results, arm), folded(arm, 26), "o-")
    axis.set(xlabel="candidates of a layer, the fewest kernels first", ylabel="MiB", ylim=(0, None))
    axis.legend()
    return figure


def probabilities(results: Results) -> "Figure | None":
    """softmax(alpha) of the first seed, epoch by epoch: a row for each arm, a panel for each block."""
    found = first_kept(results, "shares")
    if found is None:
        return None
    seed, kept = found
    count = next(iter(kept.values()))["shares"].shape[1]
    shown = np.unique(np.linspace(0, count - 1, min(MOST, count)).round().astype(int))
    size = (1.45 * len(shown) + 0.6, 1.45 * len(kept) + 0.7)
    figure, axes = subplots(len(kept), len(shown), size=size, sharex=True, sharey=True, squeeze=False)
    for row, (arm, arrays) in zip(axes, kept.items(), strict=True):
        for axis, block in zip(row, shown, strict=True):
            for place, (option, color) in enumerate(zip(OPTIONS, COLORS, strict=True)):
                curve = arrays["shares"][:, block, place]
                axis.plot(range(1, len(curve) + 1), curve, color=color, label=option, linewidth=1.2)
            axis.set_ylim(0, 1)
        row[0].set_ylabel(folded(arm, 10))
    for axis, block in zip(axes[0], shown, strict=True):
        axis.set_title(f"block {block}")
    for axis in axes[-1]:
        axis.set_xlabel("epoch")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    title = f"options, seed {seed}"
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(OPTIONS), frameon=False, fontsize=8, title=title
    )
    return figure


def _points(results: Results) -> Iterator[tuple[str, np.ndarray]]:
    for arm, kept in kept_by_arm(results, "point").items():
        yield arm, np.concatenate([seed["point"] for seed in kept])
