"""Pictures of the G-ACIL claim, from stored results."""

from typing import TYPE_CHECKING

import numpy as np

from throughline.lab import Results
from throughline.lab.plots import BASELINE, draw_bands, first_kept, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["course", "errors"]


def course(results: Results) -> "Figure | None":
    """Accuracy along the stream, over the samples of each class in the stream of the first seed."""
    first = first_kept(results, "stream")
    if first is None:
        return None
    stream, ends = (next(iter(first[1].values()))[name] for name in ("stream", "ends"))
    figure, (top, bottom) = subplots(2, 1, size=(6.4, 5.2), sharex=True, height_ratios=(3, 2))
    draw_bands(top, results, "accuracy")
    top.set_ylabel("accuracy on classes seen")
    if top.lines:
        top.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    picture = bottom.imshow(
        np.ma.masked_equal(stream, 0),
        aspect="auto",
        interpolation="nearest",
        extent=(0, ends[-1], len(stream) - 0.5, -0.5),
        cmap="viridis",
    )
    figure.colorbar(picture, ax=bottom, label="samples", shrink=0.9)
    for axis in (top, bottom):
        for end in ends[:-1]:
            axis.axvline(end, color=BASELINE, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0 if axis is top else 3)
    bottom.set(xlabel="samples seen", ylabel="class")
    if len(stream) <= 20:
        bottom.set_yticks(range(len(stream)))
    return figure


def errors(results: Results, bound: float) -> "Figure":
    """Weight error by batches, and the bound of the claim."""
    figure, axis = subplots()
    draw_bands(axis, results, "weight_error")
    axis.axhline(bound, color=BASELINE, linewidth=0.9, linestyle=(0, (4, 3)), label=f"bound of the claim, {bound:g}")
    axis.set(xscale="log", yscale="log", xlabel="batches", ylabel="relative weight error")
    axis.legend(frameon=False)
    return figure
