"""Pictures of the bottleneck's claim, from stored results."""

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from throughline.claims.dkvb.toy import ARMS, CLASSES, REACH, UNDECIDED, blobs
from throughline.lab import Results
from throughline.lab.plots import PALETTE, first_kept, kept_by_arm, subplots

__all__ = ["toy", "writers"]

CLASS_COLORS = ("#e0692f", "#2f7fd6", "#2a9d62", "#a763c9", "#c9a227", "#d6477f", "#3aa6a6", "#8c6d4f")


def toy(results: Results) -> Figure | None:
    first = first_kept(results, "toy", ARMS)
    if first is None:
        return None
    seed, kept = first
    tasks = len(next(iter(kept.values()))["toy"])
    x, y = (part.numpy() for part in blobs(seed))
    figure, axes = subplots(len(kept), tasks, size=(1.65 * tasks + 0.4, 1.65 * len(kept) + 0.3), squeeze=False)
    colors = ListedColormap(CLASS_COLORS)
    for row, (arm, arrays) in enumerate(kept.items()):
        for task, region in enumerate(arrays["toy"]):
            axis = axes[row, task]
            extent = (-REACH, REACH, -REACH, REACH)
            seen = np.ma.masked_equal(region, UNDECIDED)
            axis.imshow(seen, origin="lower", extent=extent, cmap=colors, vmin=0, vmax=CLASSES - 1, alpha=0.45)
            shown = y < (task + 1) * (CLASSES // tasks)
            axis.scatter(*x[shown].T, c=y[shown], cmap=colors, vmin=0, vmax=CLASSES - 1, s=3, linewidths=0)
            axis.set(xticks=[], yticks=[])
            if row == 0:
                axis.set_title(f"after task {task + 1}")
        axes[row, 0].set_ylabel(arm.replace("_", " "))
    return figure


def writers(results: Results) -> Figure | None:
    found = kept_by_arm(results, "wrote", ("bottleneck", "bottleneck_own_keys"))
    if not found:
        return None
    kept = [arrays["wrote"] for arrays in next(iter(found.values()))]
    wrote = kept[0]  # (tasks, C, K): whether a task fetched, and so changed, a value
    tasks = len(wrote)
    last = np.where(wrote.any(0), tasks - wrote[::-1].argmax(0), 0)  # 0 for never, else the number of the task
    figure, (left, right) = subplots(1, 2, size=(7.6, 3.2), width_ratios=(5, 3))
    colors = ListedColormap(["#00000000", *(PALETTE * (tasks // len(PALETTE) + 1))[:tasks]])
    drawn = left.imshow(
        np.sort(last, 1), aspect="auto", interpolation="nearest", cmap=colors, vmin=-0.5, vmax=tasks + 0.5
    )
    bar = figure.colorbar(drawn, ax=left, ticks=range(tasks + 1), label="task that wrote last")
    bar.ax.set_yticklabels(["never", *(str(task + 1) for task in range(tasks))])
    left.set(xlabel="pair, sorted", ylabel="codebook")
    shares = np.stack([np.bincount(w.sum(0).ravel(), minlength=tasks + 1) / w[0].size for w in kept]).mean(0)
    right.bar(range(tasks + 1), shares, color=PALETTE[1], width=0.7)
    right.set(xlabel="tasks that wrote a pair", ylabel="share of pairs")
    right.set_xticks(range(tasks + 1))
    return figure
