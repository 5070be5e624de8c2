"""Pictures of GroCo's claim, from stored results."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from throughline.lab import Results
from throughline.lab.plots import arm_color, draw_bands, subplots

__all__ = ["curves", "margins", "neighbours", "permutations"]


def curves(results: Results) -> Figure | None:
    figure, axis = subplots()
    draw_bands(axis, results, "k-NN accuracy")
    if not axis.lines:
        return None
    last = max(float(np.max(np.asarray(line.get_xdata()))) for line in axis.lines)
    epochs = results.config.epochs
    ticks = np.unique(np.linspace(0, epochs, 6).round())
    axis.set_xticks(last * ticks / epochs, [f"{tick:g}" for tick in ticks])
    axis.set_xlabel("epoch")
    axis.set_ylabel("k-NN accuracy")
    axis.legend()
    return figure


def _kept(results: Results, name: str, seeds: tuple[int, ...] | None = None) -> dict[str, list[Any]]:
    """Arrays of that name by arm, for arms that kept some."""
    found = {a: [results.kept(a, seed) for seed in seeds or results.seeds] for a in results.arms}
    return {a: [k[name] for k in kept if name in k] for a, kept in found.items() if any(name in k for k in kept)}


def margins(results: Results) -> Figure | None:
    kept = {arm: np.concatenate(arrays) for arm, arrays in _kept(results, "margins").items()}
    if not kept:
        return None
    figure, axis = subplots(size=(6.4, 3.2))
    low, high = np.quantile(np.concatenate(list(kept.values())), [0.001, 0.999])
    bins = np.linspace(low, high, 60).tolist()
    for arm, margins in kept.items():
        label = f"{arm.replace('_', ' ')}: {np.mean(margins > 0):.0%} in order"
        axis.hist(
            margins, bins, density=True, histtype="step", color=arm_color(results, arm), label=label, linewidth=1.6
        )
    axis.axvline(0, color="0.5", linewidth=0.8, linestyle=":")
    axis.set_xlabel("cosine similarity of the other view - that of the hardest negative")
    axis.set_yticks([])
    axis.legend(loc="upper left")
    return figure


def neighbours(results: Results) -> Figure | None:
    seed = next((s for s in results.seeds if _kept(results, "shown", (s,))), None)
    if seed is None:
        return None
    shown, right = _kept(results, "shown", (seed,)), _kept(results, "right", (seed,))
    rows, columns = next(iter(shown.values()))[0].shape[:2]
    figure, axes = subplots(rows, len(shown) * columns, size=(2.7 * len(shown), 0.5 * rows + 0.3), squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    for block, arm in enumerate(shown):
        axes[0, block * columns + columns // 2].set_title(arm.replace("_", " "))
        for row, column in np.ndindex(rows, columns):
            axis = axes[row, block * columns + column]
            image = shown[arm][0][row, column].transpose(1, 2, 0)
            axis.imshow(image.squeeze(), cmap="gray_r", alpha=1.0 if column else 0.55)
            if column and right[arm][0][row, column - 1]:
                axis.spines[:].set(visible=True, color="#2a9d62", linewidth=2.0)
    return figure


def permutations(results: Results) -> Figure | None:
    arms = [arm for arm in results.claim.arms if arm in results.arms]
    panels = [
        (f"{arm}, {when}", _kept(results, when)[arm][0])
        for arm in arms
        for when in ("early", "late")
        if arm in _kept(results, when)
    ]
    if not panels:
        return None
    figure, axes = subplots(1, len(panels), size=(2.0 * len(panels) + 0.6, 2.3), squeeze=False)
    top = max(float(p.max()) for _, p in panels)
    for axis, (title, p) in zip(axes.flat, panels, strict=True):
        drawn = axis.imshow(p, vmin=0, vmax=top, cmap="viridis")
        axis.set_title(title)
        axis.set_xticks([0, len(p) - 1], ["negatives", "positive"])
        axis.set_yticks([0, len(p) - 1], ["lowest", "highest"])
    figure.colorbar(drawn, ax=axes, shrink=0.8)
    return figure
