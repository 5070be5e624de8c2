"""Pictures of the spon claim, from stored results."""

from typing import TYPE_CHECKING, Any

import numpy as np

from throughline.lab import Results
from throughline.lab.plots import arm_color, draw_band, kept_by_arm, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["course", "fields", "resolution", "trace"]

LEARNED = ("spon", "spon-mg", "unconstrained")


def fields(results: Results) -> "Figure | None":
    """Truth, predictions and errors of one test input on its mesh, of the first seed that has any."""
    runs = [(arm, seed) for seed in results.seeds for arm in ("spon", "spon-mg") if "made" in results.kept(arm, seed)]
    if not runs:
        return None
    shown = {arm: results.kept(arm, seed) for arm, seed in runs if seed == runs[0][1]}
    first = next(iter(shown.values()))
    x, y = first["nodes"].T
    low, high = (float(end(first["truth"])) for end in (np.min, np.max))
    worst = max(float(np.abs(kept["made"] - kept["truth"]).max()) for kept in shown.values())
    figure, axes = subplots(2, 1 + len(shown), size=(2.2 * (1 + len(shown)) + 0.6, 4.2), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
        axis.set_aspect("equal")

    def draw(place: tuple[int, int], values: np.ndarray, title: str, cmap: str, ends: tuple[float, float]) -> Any:
        axes[place].set_title(title)
        return axes[place].tripcolor(
            x, y, first["cells"], values, cmap=cmap, vmin=ends[0], vmax=ends[1], shading="gouraud", rasterized=True
        )

    seen = first["input"]
    if len(seen) == len(x):
        draw((1, 0), seen, "input", "cividis", (float(seen.min()), float(seen.max())))
    above = draw((0, 0), first["truth"], "truth", "viridis", (low, high))
    for place, (arm, kept) in enumerate(shown.items(), 1):
        draw((0, place), kept["made"], arm, "viridis", (low, high))
        below = draw((1, place), kept["made"] - kept["truth"], f"error of {arm}", "RdBu_r", (-worst, worst))
    figure.colorbar(above, ax=axes[0, :], shrink=0.8)
    figure.colorbar(below, ax=axes[1, :], shrink=0.8)
    return figure


def course(results: Results) -> "Figure | None":
    """Test error against updates and against processor time: the mean, and the range over seeds."""
    kept = kept_by_arm(results, "course", _learned(results))
    if not kept:
        return None
    figure, axes = subplots(1, 2, size=(7.4, 3.2), sharey=True)
    for arm, runs in kept.items():
        length = min(len(run["course"]) for run in runs)
        whole = np.stack([run["course"][:length] for run in runs])  # (seeds, looks, 3)
        for axis, column in zip(axes, (0, 1), strict=True):
            draw_band(axis, whole[..., column].mean(0), whole[..., 2], arm_color(results, arm), arm)
    axes[0].set(xlabel="updates", ylabel="relative L² error", yscale="log")
    axes[1].set(xlabel="processor time of the updates in seconds")
    axes[0].legend()
    return figure


def trace(results: Results) -> "Figure | None":
    """The solution along the outer boundary, of the first seed, and what the arms make of it."""
    runs = {
        arm: kept
        for arm in ("spon-mg", "unconstrained")
        for seed in results.seeds[:1]
        if "made" in (kept := results.kept(arm, seed))
    }
    if not runs:
        return None
    first = next(iter(runs.values()))
    loop = outline(first["cells"])
    steps = np.linalg.norm(np.diff(first["nodes"][loop], axis=0), axis=1)
    along, most = np.concatenate([[0], np.cumsum(steps)]), np.abs(first["truth"]).max()
    figure, axis = subplots(size=(6.4, 2.8))
    for arm, kept in runs.items():
        axis.plot(along, kept["made"][loop] / most, color=arm_color(results, arm), label=arm)
    axis.plot(along, first["truth"][loop] / most, ":", color="0.5", label="truth", zorder=3)
    axis.set(xlabel="way along the outer boundary", ylabel="value over the largest", xlim=(0, along[-1]))
    axis.legend()
    return figure


def outline(cells: np.ndarray) -> np.ndarray:
    """The longest loop of nodes that bounds triangles ``(m, 3)``, the first again at the end."""
    edges = np.sort(cells[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), 1)
    border, count = np.unique(edges, axis=0, return_counts=True)
    around: dict[int, list[int]] = {}
    for a, b in border[count == 1].tolist():
        around.setdefault(a, []).append(b)
        around.setdefault(b, []).append(a)
    longest: list[int] = []
    while around:
        loop = [next(iter(around))]
        while (ways := around.pop(loop[-1], None)) is not None:
            loop.append(next((way for way in ways if way in around), loop[0]))
        longest = max(longest, loop, key=len)
    return np.array(longest)


def resolution(results: Results) -> "Figure | None":
    """Error against the number of unknowns of the mesh on which the question is asked."""
    kept = kept_by_arm(results, "resolution", _learned(results))
    if not kept:
        return None
    figure, axis = subplots(size=(5.2, 3.2))
    for arm, runs in kept.items():
        whole, color = np.stack([run["resolution"] for run in runs]), arm_color(results, arm)
        draw_band(axis, whole[0, :, 0], whole[..., 1], color, arm, "o-")
        again = np.array([run["rebuilt"] for run in runs])
        axis.plot(whole[0, -1:, 0], again.mean(keepdims=True), "x", color=color)
    axis.plot([], [], "x", color="0.5", label="processor rebuilt there")
    axis.set(xlabel="unknowns of the query's mesh", ylabel="relative L² error", xscale="log", yscale="log")
    axis.legend()
    return figure


def _learned(results: Results) -> list[str]:
    return [arm for arm in LEARNED if arm in results.arms]
