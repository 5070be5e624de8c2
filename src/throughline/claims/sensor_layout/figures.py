"""Pictures of the sensor-layout claim, from stored results."""

from typing import TYPE_CHECKING, Any

import numpy as np

from throughline.claims.sensor_layout.config import SHAPES
from throughline.lab import Results
from throughline.lab.plots import arm_color, bare, draw_bands, first_kept, subplots
from throughline.sensing.layout import SensorLayout

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["gains", "grids", "learning", "sights"]


def gains(results: Results) -> "Figure":
    """The paired differences of accuracy to the baseline."""
    from scipy import stats

    others = [arm for arm in results.arms if arm != "uniform"]
    figure, axis = subplots(size=(6.4, 3.2))
    axis.axhline(0, color="0.5", linewidth=0.8)
    for place, arm in enumerate(others):
        _, ours, base = results.paired("accuracy", arm, "uniform")
        difference, color = ours - base, arm_color(results, arm)
        axis.plot(np.full(len(difference), place - 0.08), difference, "o", color=color, markersize=4, alpha=0.6)
        if len(difference) > 1:
            half = stats.t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / len(difference) ** 0.5
            axis.errorbar(place + 0.12, difference.mean(), half, fmt="s", color=color, capsize=4, markersize=5)
    axis.set_xticks(range(len(others)), [arm.replace("_", " ") for arm in others])
    axis.set_xlim(-0.5, max(len(others), 1) - 0.5)
    axis.set_ylabel("accuracy above uniform")
    return figure


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
        _picture(axis, arrays["mean_scene"])
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
        _picture(axis, scene)
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


def _picture(axis: "Axes", image: np.ndarray) -> None:
    gray = {"cmap": "gray"} if image.shape[-1] == 1 else {}
    axis.imshow(image[..., 0] if gray else image, extent=(-1, 1, 1, -1), interpolation="nearest", **gray)  # type: ignore[arg-type]


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
