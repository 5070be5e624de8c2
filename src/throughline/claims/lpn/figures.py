"""Pictures of the lpn claim, from stored results."""

from typing import TYPE_CHECKING

import numpy as np

from throughline.lab import Results
from throughline.lab.plots import arm_color, draw_band, draw_image, first_kept, kept_by_arm, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["functions", "strip", "violins"]

TRUTH = {"color": "black", "linestyle": "--", "linewidth": 1.2, "zorder": 5}
KINDS = {
    "noise": "deviation of the noise",
    "blur": "deviation of the blur (pixels)",
    "mixture": "share of another image",
}
SHOWN = 5  # images of the strip


def functions(results: Results) -> "Figure | None":
    """f and R of every arm over the truth: the mean over seeds, and a band from the lowest to the highest."""
    runs = kept_by_arm(results, "outputs")
    if not runs:
        return None
    figure, axes = subplots(1, 2, size=(8.4, 3.6))
    for axis, (x, y) in zip(axes, (("inputs", "outputs"), ("points", "prior")), strict=True):
        for arm, kept in runs.items():
            values = np.stack([k[y] for k in kept])
            draw_band(axis, kept[0][x], values, arm_color(results, arm), arm.replace("_", " "))
        at = next(iter(runs.values()))[0][x]
        truth = np.abs(at) if y == "prior" else np.sign(at) * np.maximum(np.abs(at) - 1, 0)
        axis.plot(at, truth, label="prox of −log p" if y == "outputs" else "−log p", **TRUTH)
        axis.legend()
    axes[0].set(xlabel="y, noisy", ylabel="f(y)")
    axes[1].set(xlabel="x", ylabel="R(x) − R(0)")
    return figure


def violins(results: Results) -> "Figure | None":
    """R less its mean on clean samples, against corruption; all seeds together, one row for each arm."""
    found = kept_by_arm(results, "prior_noise")
    if not found:
        return None
    kinds = [kind for kind in KINDS if f"prior_{kind}" in next(iter(found.values()))[0]]
    size = (2.9 * len(kinds) + 0.6, 1.9 * len(found) + 0.4)
    figure, axes = subplots(len(found), len(kinds), size=size, squeeze=False)
    for row, (arm, kept) in zip(axes, found.items(), strict=True):
        for axis, kind in zip(row, kinds, strict=True):
            values = np.concatenate([k[f"prior_{kind}"] - np.nanmean(k["prior_noise"][:, 0]) for k in kept])
            levels = [column[np.isfinite(column)] for column in values.T]
            places = [place for place, level in enumerate(levels) if len(level) > 1]
            parts = axis.violinplot([levels[place] for place in places], places, showmedians=True) if places else {}
            for part in parts.values():
                for shape in part if isinstance(part, list) else [part]:
                    shape.set_color(arm_color(results, arm))
            axis.set_xticks(range(len(levels)), [f"{level:g}" for level in kept[0][kind]])
            axis.set_xlabel(KINDS[kind] if row is axes[-1] else "")
        row[0].set_ylabel(f"R, {arm.replace('_', ' ')}")
    return figure


def strip(results: Results) -> "Figure | None":
    """Deblurred images of the first seed that has them all: blurred, total variation, each arm, truth."""
    found = first_kept(results, "restored")
    if found is None:
        return None
    kept = found[1]
    first = next(iter(kept.values()))
    rows = {"blurred": first["blurred"]}
    if "l2" in kept:  # which has measured what does without our network
        rows["TV"] = kept["l2"]["restored_tv"]
    rows |= {arm.replace("_", " "): k["restored"] for arm, k in kept.items()}
    rows["truth"] = first["truth"]
    count = min(SHOWN, len(first["truth"]))
    figure, axes = subplots(len(rows), count, size=(1.2 * count + 1.2, 1.2 * len(rows)), squeeze=False)
    for row, (name, images) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(row, images, strict=False):
            draw_image(axis, np.moveaxis(image, 0, -1).clip(0, 1), vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure
