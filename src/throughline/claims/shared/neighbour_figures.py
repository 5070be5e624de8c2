"""Queries and what was found for them, from stored results."""

from typing import TYPE_CHECKING

import numpy as np

from throughline.lab import Results
from throughline.lab.plots import bare, first_kept, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["neighbours"]


def neighbours(results: Results) -> "Figure | None":
    """Queries and k neighbours, framed if right: the arrays "shown" ``(n, 1 + k, c, h, w)`` and "right" ``(n, k)``."""
    first = first_kept(results, "shown")
    if first is None:
        return None
    kept = first[1]
    rows, columns = next(iter(kept.values()))["shown"].shape[:2]
    figure, axes = subplots(rows, len(kept) * columns, size=(2.7 * len(kept), 0.5 * rows + 0.3), squeeze=False)
    for axis in axes.flat:
        bare(axis)
    for block, (arm, arrays) in enumerate(kept.items()):
        axes[0, block * columns + columns // 2].set_title(arm.replace("_", " "))
        for row, column in np.ndindex(rows, columns):
            axis = axes[row, block * columns + column]
            image = arrays["shown"][row, column].transpose(1, 2, 0)
            axis.imshow(image.squeeze(), cmap="gray_r", alpha=1.0 if column else 0.55)
            if column and arrays["right"][row, column - 1]:
                axis.spines[:].set(visible=True, color="#2a9d62", linewidth=2.0)
    return figure
