"""Pictures of the dnis claim, from stored results."""

from typing import TYPE_CHECKING

import numpy as np

from throughline.lab import Results
from throughline.lab.plots import arm_color, draw_band, first_kept, folded, kept_by_arm, matrices, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["alphas", "metric_of", "sizes", "tradeoff"]

LINES = ("uniform", "magnitude", "dnis", "mixed")


def metric_of(results: Results) -> tuple[str, str]:
    """The metric that the task has, and its name for a reader."""
    if "ranking_error" in results.metrics:
        return "ranking_error", "error of the ranking"
    return "mse", "mean squared test error"


def tradeoff(results: Results) -> "Figure | None":
    """Error against entries, one line an arm; each seed measured from its own largest uniform table."""
    base = {s: kept["tradeoff"][-1, 1] for s in results.seeds if "tradeoff" in (kept := results.kept("uniform", s))}
    arms = [arm for arm in LINES if arm in results.arms]
    if not base:
        return None
    figure, axis = subplots()
    axis.axhline(0, color="0.5", linewidth=0.8)
    for arm in arms:
        found = {s: k["tradeoff"] for s in base if "tradeoff" in (k := results.kept(arm, s))}
        if not found:
            continue
        errors = np.stack([points[:, 1] - base[s] for s, points in found.items()])
        entries = np.mean([points[:, 0] for points in found.values()], 0)
        draw_band(axis, entries, errors, arm_color(results, arm), folded(arm, 26), "o-")
    axis.set(xlabel="entries of the embedding table", ylabel=f"{metric_of(results)[1]}, difference", xscale="log")
    axis.legend()
    return figure


def sizes(results: Results) -> "Figure | None":
    """Dimensions that are kept by block, and the uniform size as a line."""
    kept = kept_by_arm(results, "block_sizes", [arm for arm in LINES if arm in results.arms])
    uniform = results.values("size", "uniform")
    if not kept:
        return None
    figure, axis = subplots()
    for arm, runs in kept.items():
        popularity = np.mean([run["popularity"] for run in runs], 0)
        values = np.stack([run["block_sizes"] for run in runs])
        draw_band(axis, np.maximum(popularity, 0.1), values, arm_color(results, arm), folded(arm, 26), "o-")
    if uniform:
        color = arm_color(results, "uniform")
        axis.axhline(float(np.mean(list(uniform.values()))), color=color, linestyle="--", label="uniform")
    axis.set(xlabel="mean occurrences of the block's users and items", ylabel="mean size", xscale="log", ylim=(0, None))
    axis.legend()
    return figure


def alphas(results: Results) -> "Figure | None":
    """α of the first seed, block by dimension; dimensions sorted by their mean at the end."""
    found = first_kept(results, "alphas", ["dnis"])
    if found is None:
        return None
    seed, kept = found
    course = kept["dnis"]["alphas"]
    order = np.argsort(-course[-1].mean(0), kind="stable")
    epochs = {"start": 0, "middle": len(course) // 2, "end": len(course) - 1}
    panels = {f"{name}, epoch {epoch}": course[epoch][:, order] for name, epoch in epochs.items()}
    figure, axes = matrices(panels, size=(8.4, 2.6), high=1.0, label="α")
    for axis in axes:
        axis.set_aspect("auto")
        axis.set_xlabel("dimension")
    axes[0].set_ylabel(f"block, frequent first (seed {seed})")
    return figure
