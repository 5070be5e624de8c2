"""Pictures of GroCo's claim, from stored results."""

import numpy as np
from matplotlib.figure import Figure

from throughline.lab import Results
from throughline.lab.plots import arm_color, draw_bands, kept_by_arm, matrices, subplots

__all__ = ["curves", "margins", "permutations"]


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


def margins(results: Results) -> Figure | None:
    runs = kept_by_arm(results, "margins")
    kept = {arm: np.concatenate([arrays["margins"] for arrays in seeds]) for arm, seeds in runs.items()}
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


def permutations(results: Results) -> Figure | None:
    kept = {when: kept_by_arm(results, when, results.claim.arms) for when in ("early", "late")}
    panels = {
        f"{arm}, {when}": kept[when][arm][0][when] for arm in results.claim.arms for when in kept if arm in kept[when]
    }
    if not panels:
        return None
    top = max(float(p.max()) for p in panels.values())
    figure, axes = matrices(panels, size=(2.0 * len(panels) + 0.6, 2.3), high=top)
    for axis, p in zip(axes, panels.values(), strict=True):
        axis.set_xticks([0, len(p) - 1], ["negatives", "positive"])
        axis.set_yticks([0, len(p) - 1], ["lowest", "highest"])
    return figure
