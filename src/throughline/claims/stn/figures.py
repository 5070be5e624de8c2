"""Pictures of the stn claim, from stored results."""

from typing import TYPE_CHECKING

import numpy as np

from throughline.lab import Results
from throughline.lab.plots import PALETTE, arm_color, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["compute", "schedule", "starts"]

PANEL = (2.15, 1.75)  # inches
LINE = {"self_tuning": "-", "other_start": "--"}


def schedule(results: Results) -> "Figure | None":
    """Every hyperparameter of the first seed in a panel of its own, σ as a band."""
    seed = next((s for s in results.seeds if "bands" in results.kept("self_tuning", s)), None)
    if seed is None:
        return None
    bands, names = results.kept("self_tuning", seed)["bands"], _names(results)
    figure, axes = _panels(len(names))
    for place, (name, axis) in enumerate(zip(names, axes, strict=True)):
        middle, low, high = (bands[:, 1 + place + part * len(names)] for part in range(3))
        color = PALETTE[place % len(PALETTE)]
        axis.plot(bands[:, 0], middle, color=color)
        axis.fill_between(bands[:, 0], low, high, color=color, alpha=0.18, linewidth=0)
        axis.set(title=name, xlim=(0, bands[-1, 0]), ylim=(0, None))
    figure.supxlabel(f"step (seed {seed})", fontsize=9)
    return figure


def starts(results: Results) -> "Figure | None":
    """The same hyperparameters from two starts, every seed."""
    arms = [arm for arm in LINE if arm in results.arms]
    runs = [(arm, results.kept(arm, s)["bands"]) for arm in arms for s in results.seeds if results.kept(arm, s)]
    if len({arm for arm, _ in runs}) < 2:
        return None
    names = _names(results)
    figure, axes = _panels(len(names))
    for place, (name, axis) in enumerate(zip(names, axes, strict=True)):
        for arm, bands in runs:
            axis.plot(bands[:, 0], bands[:, 1 + place], LINE[arm], color=arm_color(results, arm), linewidth=0.8)
        axis.set(title=name, ylim=(0, None))
    for arm in arms:
        axes[0].plot([], [], LINE[arm], color=arm_color(results, arm), label=arm.replace("_", " "))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def compute(results: Results) -> "Figure | None":
    """The least validation loss so far of both arms against the seconds that it took."""
    figure, axis = subplots(size=(6.4, 3.6))
    top = []
    for arm in ("random_search", "self_tuning"):
        courses = [kept["course"] for s in results.seeds if "course" in (kept := results.kept(arm, s))]
        if not courses:
            continue
        end = min(course[-1, 0] for course in courses)
        seconds = np.linspace(max(course[1, 0] for course in courses), end, 200)
        values = np.stack([c[np.searchsorted(c[:, 0], seconds, side="right") - 1, 1] for c in courses])
        color = arm_color(results, arm)
        axis.plot(seconds, values.mean(0), color=color, label=arm.replace("_", " "))
        axis.fill_between(seconds, values.min(0), values.max(0), color=color, alpha=0.18, linewidth=0)
        top.append(values.mean(0)[0])
    if not top:
        return None
    axis.set(xlabel="processor time in seconds", ylabel="least validation loss so far", yscale="log")
    axis.set_xlim(0, None)
    low, high = axis.get_ylim()
    ticks = [t for t in (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5) if low <= t <= high]
    axis.set_yticks(ticks, [f"{t:g}" for t in ticks])
    axis.minorticks_off()
    axis.legend(frameon=False)
    return figure


def _names(results: Results) -> list[str]:
    """Hyperparameters in the order of the space: every one has a curve of its own."""
    return [name for name in results.curves if name != "valid_loss"]


def _panels(count: int) -> "tuple[Figure, np.ndarray]":
    columns = min(count, 3 if count <= 6 else 5)
    rows = -(-count // columns)
    figure, axes = subplots(rows, columns, size=(PANEL[0] * columns, PANEL[1] * rows + 0.3), squeeze=False)
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    return figure, axes.flat[:count]
