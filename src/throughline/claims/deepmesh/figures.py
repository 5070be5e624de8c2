"""Pictures of the deepmesh claim, from stored results."""

from typing import TYPE_CHECKING

import numpy as np

from throughline.lab import Results
from throughline.lab.plots import arm_color, bare, draw_bands, first_kept, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["course", "inflow", "shapes", "strip"]


def shapes(results: Results) -> "Figure | None":
    """Input silhouette, what the arms make of it, and the truth, from the input's side and from another, first seed."""
    found = first_kept(results, "pictures")
    if found is None:
        return None
    kept = found[1]
    first = next(iter(kept.values()))
    order = [arm for arm in ("raw", "mesh", "deepmesh") if arm in kept]
    columns = [("input", first["silhouettes"][:, None])]
    columns += [(arm, kept[arm]["pictures"]) for arm in order] + [("truth", first["truth"])]
    count = len(first["silhouettes"])
    wide = [min(2, pictures.shape[1]) for _, pictures in columns]
    figure, axes = subplots(
        count, sum(wide), size=(1.1 * sum(wide), 1.1 * count + 0.3), squeeze=False, gridspec_kw={"wspace": 0.02}
    )
    for axis in axes.flat:
        bare(axis)
    place = 0
    for (name, pictures), width in zip(columns, wide, strict=True):
        for side in range(width):
            for row in range(count):
                axes[row, place].imshow(pictures[row, side], cmap="gray", vmin=0, vmax=1)
            if side == 0:
                axes[0, place].set_title(name, loc="left")
            elif name != "input":
                axes[0, place].set_title("other side", fontsize=8, color="0.5")
            place += 1
    for row in range(count):
        axes[row, 0].set_ylabel(_name(first["names"][row]), fontsize=8)
    return figure


def strip(results: Results) -> "Figure | None":
    """The mesh on the way, of the shape whose topology, or else silhouette, changes most, first seed."""
    found = first_kept(results, "strip", ("deepmesh",) if "deepmesh" in results.arms else ())
    if found is None:
        return None
    kept = found[1]["deepmesh"]
    count = len(kept["strip"])
    figure, axes = subplots(1, count, size=(1.5 * count, 1.9), squeeze=False)
    for axis, picture, step, euler in zip(axes[0], kept["strip"], kept["steps"], kept["eulers"], strict=True):
        bare(axis)
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
        axis.set_title(f"step {step:.0f}\nEuler {euler:.0f}", fontsize=9)
    return figure


def inflow(results: Results) -> "Figure | None":
    """What the loss asks of the field on the first mesh of each shape: blue moves out, red moves in; first seed."""
    found = first_kept(results, "inflow", ("deepmesh",) if "deepmesh" in results.arms else ())
    if found is None:
        return None
    pictures = found[1]["deepmesh"]["inflow"]
    figure, axes = subplots(1, len(pictures), size=(1.5 * len(pictures), 1.8), squeeze=False)
    for axis, picture, name in zip(axes[0], pictures, found[1]["deepmesh"]["names"], strict=True):
        bare(axis)
        axis.imshow(np.clip(picture, 0, 1))
        axis.set_title(_name(name), fontsize=9)
    return figure


def course(results: Results) -> "Figure":
    """The silhouette's error while refining, and Chamfer distances of every shape and seed."""
    figure, axes = subplots(1, 2, size=(7.4, 3.2))
    draw_bands(axes[0], results, "silhouette_error")
    axes[0].set(xlabel="step of refinement", ylabel="mean |S − S*|")
    if axes[0].lines:
        axes[0].legend()
    for place, arm in enumerate(results.arms):
        runs = [kept["chamfers"] for seed in results.seeds if "chamfers" in (kept := results.kept(arm, seed))]
        if runs:
            values = np.concatenate(runs)
            spread = np.linspace(-0.25, 0.25, len(values))
            axes[1].plot(place + spread, np.sort(values), "o", markersize=3, color=arm_color(results, arm))
    axes[1].set_xticks(range(len(results.arms)), results.arms)
    axes[1].set(ylabel="Chamfer distance × 10³ of each shape", yscale="log")
    return figure


def _name(codes: np.ndarray) -> str:
    return bytes(codes.astype(np.uint8)).rstrip(b"\0").decode(errors="replace")
