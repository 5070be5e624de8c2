"""Pictures that several claims draw: paired dots and differences, curves with bands, images, one colour per arm.

Figures are built without pyplot (nothing global), on a transparent ground; the report recolours text and lines for
light and dark.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from throughline.lab.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "arm_color",
    "bare",
    "curve_bands",
    "draw_band",
    "draw_bands",
    "draw_image",
    "draw_polygon",
    "first_kept",
    "folded",
    "kept_by_arm",
    "matrices",
    "paired_differences",
    "paired_dots",
    "show_accuracies",
    "subplots",
]

BASELINE = "#8a8f98"  # a grey that reads on white and on black
PALETTE = ("#e0692f", "#2f7fd6", "#2a9d62", "#a763c9", "#c9a227", "#d6477f", "#3aa6a6")
FEW = 5  # curves that leave room for their names
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "font.size": 9,
}


def subplots(
    rows: int = 1, cols: int = 1, size: tuple[float, float] = (6.4, 3.6), **options: Any
) -> "tuple[Figure, Any]":
    """A transparent figure in the house style and its axes, as `matplotlib.pyplot.subplots` would return them.

    >>> figure, axes = subplots(1, 2)
    >>> len(axes)
    2
    """
    from matplotlib import rc_context  # here: units import their claim's pictures, and start sooner without matplotlib
    from matplotlib.figure import Figure

    with rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, cols, **options)
    figure.patch.set_alpha(0)
    for axis in np.ravel(np.asarray(axes, dtype=object)):
        axis.patch.set_alpha(0)
    return figure, axes


def arm_color(results: Results, arm: str) -> str:
    """The colour of an arm in every figure of a claim: grey for the baseline, then the palette in the claim's order."""
    arms = (*results.claim.arms, *results.claim.context)
    place = arms.index(arm)
    return BASELINE if place == 0 else PALETTE[(place - 1) % len(PALETTE)]


def paired_dots(
    results: Results, metric: str, arms: Sequence[str] | None = None, *, label: str | None = None
) -> "Figure":
    """One dot per arm and seed, a line per seed between the arms, and each arm's mean as a bar."""
    shown = tuple(arm for arm in (arms or results.arms) if arm in results.arms)
    figure, axis = subplots(size=(max(4.0, 1.25 * len(shown) + 1.5), 3.4))
    found = [results.values(metric, arm) for arm in shown]
    for seed in results.seeds:
        points = [(place, values[seed]) for place, values in enumerate(found) if seed in values]
        axis.plot(*zip(*points, strict=True), color=BASELINE, alpha=0.35, linewidth=0.8, zorder=1) if points else None
    for place, (arm, values) in enumerate(zip(shown, found, strict=True)):
        numbers = list(values.values())
        color = arm_color(results, arm)
        axis.plot([place] * len(numbers), numbers, "o", color=color, markersize=4.5, alpha=0.85, zorder=2)
        if numbers:
            axis.hlines(float(np.mean(numbers)), place - 0.22, place + 0.22, color=color, linewidth=2.4, zorder=3)
    axis.set_xticks(range(len(shown)), [folded(arm, 18) for arm in shown])
    axis.set_xlim(-0.5, len(shown) - 0.5)
    axis.set_ylabel(label or metric.replace("_", " "))
    return figure


def folded(name: str, width: int) -> str:
    """A name as words, on as many lines as it takes.

    >>> folded("balanced_accuracy", 12)
    'balanced\\naccuracy'
    """
    return "\n".join(textwrap.wrap(name.replace("_", " "), width))


def paired_differences(results: Results, metric: str, baseline: str) -> "Figure":
    """How far each arm is above the baseline, seed by seed, with the 95 % interval of the mean difference."""
    from scipy import stats

    others = [arm for arm in results.arms if arm != baseline]
    figure, axis = subplots(size=(6.4, 3.2))
    axis.axhline(0, color="0.5", linewidth=0.8)
    for place, arm in enumerate(others):
        _, ours, base = results.paired(metric, arm, baseline)
        difference, color = ours - base, arm_color(results, arm)
        axis.plot(np.full(len(difference), place - 0.08), difference, "o", color=color, markersize=4, alpha=0.6)
        if len(difference) > 1:
            half = stats.t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / len(difference) ** 0.5
            axis.errorbar(place + 0.12, difference.mean(), half, fmt="s", color=color, capsize=4, markersize=5)
    axis.set_xticks(range(len(others)), [folded(arm, 18) for arm in others])
    axis.set_xlim(-0.5, max(len(others), 1) - 0.5)
    axis.set_ylabel(f"{metric} above {baseline}".replace("_", " "))
    return figure


def curve_bands(
    results: Results, name: str, arms: Sequence[str] | None = None, *, label: str | None = None, xlabel: str = "step"
) -> "Figure":
    """A logged curve per arm: the mean over seeds, and a band from the lowest to the highest seed."""
    figure, axis = subplots()
    draw_bands(axis, results, name, arms)
    axis.set_xlabel(xlabel)
    axis.set_ylabel(label or name.replace("_", " "))
    if len(axis.lines) > FEW:
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))  # beside the curves, where so many would hide them
    elif axis.lines:
        axis.legend()
    return figure


def draw_bands(axis: "Axes", results: Results, name: str, arms: Sequence[str] | None = None) -> None:
    """`curve_bands` into axes of the caller's own."""
    for arm in (a for a in (arms or results.arms) if a in results.arms):
        curves = results.curve(name, arm)
        if not curves:
            continue
        steps = np.unique(np.concatenate([s for s, _ in curves.values()]))
        values = np.stack([np.interp(steps, s, v) for s, v in curves.values()])
        draw_band(axis, steps, values, arm_color(results, arm), folded(arm, 26))


def draw_band(
    axis: "Axes", x: np.ndarray, runs: np.ndarray, color: str, label: str | None = None, style: str = "-"
) -> None:
    """The mean of curves ``(runs, points)`` and, where there are several, a band from the lowest to the highest."""
    axis.plot(x, runs.mean(0), style, color=color, label=label, markersize=4)
    if len(runs) > 1:
        axis.fill_between(x, runs.min(0), runs.max(0), color=color, alpha=0.18, linewidth=0)


def draw_image(axis: "Axes", image: np.ndarray, **options: Any) -> None:
    """An image ``(h, w, c)`` by ``imshow`` and its options: of one channel in shades of grey, else in its colours."""
    axis.imshow(image[..., 0] if image.shape[-1] == 1 else image, **{"cmap": "gray", **options})


def draw_polygon(
    axis: "Axes",
    points: np.ndarray,
    corners: Sequence[int] | np.ndarray,
    color: str,
    style: str = "-",
    *,
    numbered: bool = True,
) -> None:
    """Points ``(n, 2)`` in grey, and the closed polygon through some of them, its corners numbered in their order."""
    axis.plot(*points.T, "o", color=BASELINE, markersize=3)
    axis.plot(*points[[*corners, *corners[:1]]].T, color=color, linestyle=style)
    for place, corner in enumerate(points[corners] if numbered else (), start=1):
        axis.annotate(str(place), corner, (3, 3), textcoords="offset points", fontsize=7, color=color)
    bare(axis)
    axis.set_aspect("equal")


def bare(axis: "Axes") -> None:
    """Take the ticks and the frame away: the axes of a picture."""
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def matrices(
    panels: Mapping[str, np.ndarray], *, size: tuple[float, float], high: float, label: str | None = None
) -> "tuple[Figure, np.ndarray]":
    """A matrix under its name in each panel, in one scale of colours from 0 to ``high``; and the panels' axes."""
    figure, axes = subplots(1, len(panels), size=size, squeeze=False)
    for axis, (title, matrix) in zip(axes.flat, panels.items(), strict=True):
        drawn = axis.imshow(matrix, vmin=0, vmax=high, cmap="viridis")
        axis.set_title(title)
    figure.colorbar(drawn, ax=axes, shrink=0.8, label=label)
    return figure, axes[0]


def show_accuracies(axis: "Axes") -> None:
    """Turn an axis of errors, 1 - accuracy, into a logarithmic one of accuracies, the best on top."""
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    shown = [a for a in (0.0, 0.5, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999) if low <= 1 - a <= high]
    axis.set_yticks([1 - a for a in shown], [f"{a:g}" for a in shown])
    axis.set_ylim(high, low)
    axis.minorticks_off()


def kept_by_arm(
    results: Results, name: str, arms: Sequence[str] | None = None
) -> dict[str, list[dict[str, np.ndarray]]]:
    """What the seeds of each arm kept, where an array of that name is among it; arms without one are left out."""
    found = {
        arm: [kept for seed in results.seeds if name in (kept := results.kept(arm, seed))]
        for arm in (arms or results.arms)
    }
    return {arm: kept for arm, kept in found.items() if kept}


def first_kept(
    results: Results, name: str, arms: Sequence[str] | None = None
) -> tuple[int, dict[str, dict[str, np.ndarray]]] | None:
    """The first seed for which an arm kept an array of that name, and what those arms kept for it; None without any."""
    for seed in results.seeds:
        found = {arm: kept for arm in (arms or results.arms) if name in (kept := results.kept(arm, seed))}
        if found:
            return seed, found
    return None
