"""Pictures of the distill-quant claim, from stored results."""

import numpy as np
from matplotlib.figure import Figure

from throughline.lab import Results
from throughline.lab.plots import BASELINE, arm_color, draw_band, first_kept, show_accuracies, subplots

__all__ = ["bits", "levels", "sizes"]

FULL = "full_precision"


def _table(results: Results, metric: str, arm: str) -> dict[int, np.ndarray]:
    """``metric`` of an arm on every seed, by bits."""
    found = {b: results.values(f"{metric}_{b}bit", arm) for b in results.config.bits}
    return {b: np.array(list(values.values())) for b, values in found.items() if values}


def _errors(results: Results, arm: str) -> dict[int, np.ndarray]:
    """1 - accuracy, which a logarithmic axis can tell apart near 0."""
    return {b: np.clip(1 - v, 1e-4, 1) for b, v in _table(results, "accuracy", arm).items()}


def bits(results: Results) -> Figure | None:
    figure, axis = subplots(size=(6.4, 3.8))
    for arm in (a for a in results.arms if a != FULL):
        error = _errors(results, arm)
        if error:
            runs = np.stack(list(error.values()), 1)
            draw_band(axis, np.array(list(error)), runs, arm_color(results, arm), arm.replace("_", " "), "o-")
    whole = _errors(results, FULL)
    if whole:
        mean = float(np.mean(next(iter(whole.values()))))
        axis.axhline(mean, color=arm_color(results, FULL), linewidth=1, linestyle=(0, (4, 3)), label="full precision")
    if not axis.lines:
        return None
    axis.set_xscale("log", base=2)
    axis.set_xticks(results.config.bits, [str(b) for b in results.config.bits])
    axis.minorticks_off()
    axis.set(xlabel="bits", ylabel="accuracy")
    show_accuracies(axis)
    axis.legend(frameon=False)
    return figure


def sizes(results: Results) -> Figure | None:
    figure, axis = subplots(size=(6.4, 3.8))
    for arm in results.arms:
        error, size = _errors(results, arm), _table(results, "kilobytes", arm)
        if not error:
            continue
        x, y = ([float(np.mean(v)) for v in found.values()] for found in (size, error))
        color, mark = arm_color(results, arm), "s" if arm == FULL else "o-"
        axis.plot(x[:1] if arm == FULL else x, y[:1] if arm == FULL else y, mark, color=color, markersize=4)
        axis.lines[-1].set_label(arm.replace("_", " "))
        if arm == "quantized_distillation":
            for b, where in zip(error, zip(x, y, strict=True), strict=True):
                text = f"{b} bit" + ("s" if b > 1 else "")
                axis.annotate(text, where, textcoords="offset points", xytext=(4, -11), ha="left", fontsize=7)
    if not axis.lines:
        return None
    axis.set_xscale("log")
    ticks = axis.get_xlim()
    around = [v for v in (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 500, 1000, 5000, 10000) if ticks[0] <= v <= ticks[1]]
    axis.set_xticks(around, [str(v) for v in around])
    axis.set(xlabel="kilobytes", ylabel="accuracy")
    show_accuracies(axis)
    axis.minorticks_off()
    axis.legend(frameon=False, loc="lower right")
    return figure


def levels(results: Results) -> Figure | None:
    first = first_kept(results, "points", ("differentiable",))
    if first is None:
        return None
    kept = first[1]["differentiable"]
    figure, (top, bottom) = subplots(2, 1, size=(6.4, 3.8), sharex=True, height_ratios=(3, 2))
    counts = kept["histogram"]
    edges = np.linspace(0, 1, len(counts) + 1)
    top.stairs(counts, edges, fill=True, color=BASELINE, alpha=0.6)
    top.set(ylabel="weights", yticks=[])
    rows = {
        "learned points": (kept["points"], arm_color(results, "differentiable")),
        "at the start": (kept["start"], "#e0692f"),
        "uniform": (np.linspace(0, 1, len(kept["points"])), BASELINE),
    }
    for place, (points, color) in enumerate(rows.values()):
        bottom.plot(points, np.full(len(points), place), "|", color=color, markersize=18, markeredgewidth=2.4)
        for point in points:
            bottom.axvline(point, color=color, linewidth=0.5, alpha=0.35)
    bottom.set_yticks(range(len(rows)), list(rows))
    bottom.set(ylim=(-0.6, len(rows) - 0.4), xlabel="weight, scaled to its bucket (0 the smallest, 1 the largest)")
    return figure
