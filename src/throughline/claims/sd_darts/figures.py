"""Pictures of the sd-darts claim, from stored results."""

from typing import TYPE_CHECKING

import numpy as np

from throughline.lab import Results
from throughline.lab.plots import arm_color, draw_band, kept_by_arm, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["gap", "slices"]

LINES = {
    "uphill": "distance along the gradient in the weights",
    "across": "along a random direction, in norms of each tensor",
}
ACCURACIES = {"supernet_accuracy": ("-", "supernet"), "discrete_accuracy": ("--", "discrete")}


def slices(results: Results) -> "Figure | None":
    """Loss on two lines through the weights: the steepest, and a random one."""
    figure, axes = subplots(1, 2, size=(8.2, 3.4), sharey=True)
    drawn = False
    for axis, (name, label) in zip(axes, LINES.items(), strict=True):
        for arm, seeds in kept_by_arm(results, name, results.claim.arms).items():
            runs = np.stack([arrays[name] for arrays in seeds])
            draw_band(axis, runs[0, :, 0], runs[:, :, 1], arm_color(results, arm), arm.replace("_", " "))
            drawn = True
        axis.set_xlabel(label)
    if not drawn:
        return None
    axes[0].set_ylabel("validation loss")
    axes[0].legend()
    return figure


def gap(results: Results) -> "Figure | None":
    """Accuracy of the supernet and of its largest options alone after every epoch."""
    figure, axis = subplots(size=(6.8, 3.6))
    for arm in results.claim.arms:
        for name, (style, label) in ACCURACIES.items():
            curves = results.curve(name, arm) if arm in results.arms else {}
            if not curves:
                continue
            epochs = next(iter(curves.values()))[0]
            runs = np.stack([values for _, values in curves.values()])
            text = f"{arm.replace('_', ' ')}, {label}"
            draw_band(axis, np.asarray(epochs), runs, arm_color(results, arm), text, style)
    if not axis.lines:
        return None
    axis.set(xlabel="epoch", ylabel="validation accuracy")
    axis.legend()
    return figure
