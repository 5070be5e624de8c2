"""Pictures of the sensor-layout claim, from stored results."""

from typing import TYPE_CHECKING, Any

import numpy as np

from throughline.claims.sensor_layout.config import SHAPES
from throughline.lab import Results
from throughline.lab.plots import arm_color, bare, draw_bands, draw_image, first_kept, subplots
from throughline.sensing.layout import SensorLayout

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["grids", "learning", "sights"]

SCENE: dict[str, Any] = {"extent": (-1, 1, 1, -1), "interpolation": "nearest"}  # in the sensor's own coordinates


def learning(results: Results) -> "Figure":
    """Both components of the curvature over training."""
    figure, axes = subplots(1, 2, size=(7.2, 3.0), sharey=True)
    for axis, name in zip(axes, ("x", "y"), strict=True):
        draw_bands(axis, results, f"curvature_{name}", ("uniform", "rectangular", "curvilinear"))
        axis.set(title=f"along {name}", xlabel="step")
    axes[0].set_ylabel("curvature")
    if axes[1].lines:
        axes[1].legend(loc="upper left")
    return figure


def grids(results: Results) -> "Figure | None":
    """The pixel grid of every arm over the mean image."""
    found = first_kept(results, "scenes")
    if found is None:
        return None
    kept = found[1]
    figure, axes = subplots(1, len(kept), size=(2.1 * len(kept) + 0.4, 2.6), squeeze=False)
    for axis, (arm, arrays) in zip(axes[0], kept.items(), strict=True):
        draw_image(axis, arrays["mean_scene"], **SCENE)
        corners, fine = _corners(arm, arrays)
        color = "#e0692f" if arm == "uniform" else arm_color(results, arm)  # grey would drown in the image
        for lines in (corners[::fine], corners[:, ::fine].transpose(1, 0, 2)):
            axis.plot(lines[..., 0].T, lines[..., 1].T, color=color, linewidth=1.1, clip_on=False)
        x, y = arrays["curvature"]
        axis.set(xticks=[], yticks=[], title=arm.replace("_", " "), xlabel=f"({x:+.2f}, {y:+.2f})")
        axis.set_aspect(float(arrays["aspect"]))
    return figure


def sights(results: Results) -> "Figure | None":
    """A row of test scenes, and a row for every arm with its pixels where they are and as large as they are."""
    found = first_kept(results, "scenes")
    if found is None:
        return None
    kept = found[1]
    first = next(iter(kept.values()))
    count = len(first["scenes"])
    brightest = max(int(arrays["readings"].max()) for arrays in kept.values())  # means over areas are never as bright
    figure, axes = subplots(len(kept) + 1, count, size=(0.85 * count + 0.9, 0.88 * (len(kept) + 1)), squeeze=False)
    for axis, scene in zip(axes[0], first["scenes"], strict=True):
        draw_image(axis, scene, **SCENE)
    for row, (arm, arrays) in zip(axes[1:], kept.items(), strict=True):
        corners, fine = _corners(arm, arrays)
        for axis, reading in zip(row, arrays["readings"], strict=True):
            colors = reading.repeat(fine, 0).repeat(fine, 1)
            gray = {"cmap": "gray", "vmin": 0, "vmax": brightest} if colors.shape[-1] == 1 else {}
            values = colors[..., 0] if gray else colors
            axis.pcolormesh(corners[..., 0], corners[..., 1], values, rasterized=True, **gray)
    for row, name in zip(axes, ("scene", *kept), strict=True):
        row[0].set_ylabel(name.replace("_", " "), rotation=0, ha="right", va="center")
        for axis in row:
            bare(axis)
            axis.set(xlim=(-1, 1), ylim=(1, -1), aspect=float(first["aspect"]))
    return figure


def _corners(arm: str, arrays: dict[str, Any]) -> tuple[np.ndarray, int]:
    """Corners of the pixels, each cut into ``fine`` × ``fine`` parts so that curved sides look curved."""
    height, width = arrays["readings"].shape[1:3]
    fine = max(1, 48 // max(height, width))
    x, y = arrays["curvature"].tolist()
    # a bound of 0.99 in place of the layout's own: the curvature is given as it is
    layout = SensorLayout(
        (height * fine, width * fine), shape=SHAPES.get(arm, "rectangular"), curvature=(x, y), max_curvature=0.99
    )
    return layout.vertices().detach().numpy(), fine
