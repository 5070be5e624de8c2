"""Pictures of the dsr claim, from stored results."""

from typing import TYPE_CHECKING

import numpy as np

from throughline.claims.shared.body_figures import outline, paint
from throughline.lab import Results
from throughline.lab.plots import arm_color, bare, first_kept, kept_by_arm, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["errors", "girth", "people"]

LABELS = 20
TRUTH = "#c9a227"
MOST = 150.0  # mm, the end of the scale of colours


def people(results: Results) -> "Figure | None":
    """Image, parsing, and the bodies' outlines over it and from the side, a person a column."""
    found = first_kept(results, "front", results.claim.arms)
    if found is None:
        return None
    _, kept = found
    first = next(iter(kept.values()))
    count = len(first["images"])
    figure, axes = subplots(4, count, size=(1.5 * count, 6.2), squeeze=False)
    for column, (image, parsing) in enumerate(zip(first["images"], first["parsing"], strict=True)):
        picture, size = image.transpose(1, 2, 0), image.shape[-1]
        axes[0, column].imshow(picture)
        axes[1, column].imshow(np.ma.masked_equal(parsing, 0), cmap="tab20", vmin=0, vmax=LABELS - 1)
        axes[2, column].imshow(picture, alpha=0.45)
        for row, view in ((2, "front"), (3, "side")):
            axis = axes[row, column]
            if f"true_{view}" in first:
                outline(axis, first[f"true_{view}"][column], size, TRUTH, 1.8)
            for arm, arrays in kept.items():
                outline(axis, arrays[view][column], size, arm_color(results, arm), 0.9)
        for axis in axes[:, column]:
            axis.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal")
            bare(axis)
    for axis, label in zip(axes[:, 0], ("image", "parsing", "bodies", "from the side"), strict=True):
        axis.set_ylabel(label)
    handles = [axes[0, 0].plot([], [], color=arm_color(results, arm), label=arm)[0] for arm in kept]
    handles += [axes[0, 0].plot([], [], color=TRUTH, label="truth")[0]] * ("true_front" in first)
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def girth(results: Results) -> "Figure | None":
    """Estimated against true girth of the torso, a dot for each person, coloured by the thickness of the clothes."""
    kept = kept_by_arm(results, "girth", results.claim.arms)
    kept = {arm: runs for arm, runs in kept.items() if runs[0]["girth"].size}
    if not kept:
        return None
    figure, axes = subplots(1, len(kept), size=(2.9 * len(kept) + 0.6, 3.1), sharey=True, squeeze=False)
    every = np.concatenate([run["girth"].ravel() for runs in kept.values() for run in runs])
    low, high = float(every.min()), float(every.max())
    for axis, (arm, runs) in zip(axes[0], kept.items(), strict=True):
        true, said = np.concatenate([run["girth"] for run in runs], 1)
        cloth = 100 * np.concatenate([run["cloth"] for run in runs])
        dots = axis.scatter(true, said, c=cloth, s=4, cmap="viridis", linewidths=0)
        axis.plot([low, high], [low, high], color="0.5", linewidth=0.8)
        axis.set(title=arm, xlabel="true girth, mm outwards")
    axes[0, 0].set_ylabel("estimated")
    figure.colorbar(dots, ax=axes[0], label="clothes over the torso, cm")
    return figure


def errors(results: Results) -> "Figure | None":
    """The mean error of each vertex, over all seeds and people, on the template from the front."""
    kept = kept_by_arm(results, "errors", results.claim.arms)
    kept = {arm: runs for arm, runs in kept.items() if runs[0]["errors"].size}
    if not kept:
        return None
    figure, axes = subplots(1, len(kept), size=(2.6 * len(kept) + 0.8, 3.2), squeeze=False)
    for axis, (arm, runs) in zip(axes[0], kept.items(), strict=True):
        value = np.mean([run["errors"] for run in runs], 0)
        painted = paint(axis, runs[0]["template"], runs[0]["faces"], value, MOST)
        axis.set_title(arm)
        bare(axis)
    figure.colorbar(painted, ax=axes[0], label="mean error, mm", shrink=0.8)
    return figure
