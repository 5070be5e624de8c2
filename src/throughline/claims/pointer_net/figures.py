"""Pictures of the pointer network claim, from stored results."""

import numpy as np
import torch
from matplotlib.figure import Figure

from throughline.data.planar import hull_scores
from throughline.lab import Results
from throughline.lab.plots import BASELINE, arm_color, curve_bands, draw_band, draw_polygon, kept_by_arm, subplots

__all__ = ["distribution", "hulls", "losses", "sizes"]

SHOWN = ("pointer", "attention")
PAD = np.array([-0.08, 0.08])  # of the range, around curves and bounds


def hulls(results: Results) -> Figure | None:
    """Three test instances of a seed: the hull, and what each network points at."""
    arms = [arm for arm in SHOWN if arm in results.arms]
    seed = next((s for s in results.seeds if arms and all(results.kept(arm, s) for arm in arms)), None)
    if seed is None:
        return None
    kept = {arm: results.kept(arm, seed) for arm in arms}
    points = kept[arms[0]]["points"]
    figure, axes = subplots(len(points), 1 + len(arms), size=(2.2 * (1 + len(arms)), 2.1 * len(points)), squeeze=False)
    for row, xy in enumerate(points):
        truth = kept[arms[0]]["truth"][row]
        draw_polygon(axes[row, 0], xy, truth[truth >= 0], BASELINE)
        for column, arm in enumerate(arms, start=1):
            found = kept[arm]["found"][row]
            right = _is_hull(xy, found, truth)
            draw_polygon(axes[row, column], xy, found[found >= 0], arm_color(results, arm), "-" if right else "--")
            if not right:
                axes[row, column].set_xlabel("not the hull")
    for axis, title in zip(axes[0], ("hull", *arms), strict=True):
        axis.set_title(title)
    return figure


def _is_hull(xy: np.ndarray, found: np.ndarray, truth: np.ndarray) -> bool:
    return hull_scores(*(torch.from_numpy(part)[None] for part in (xy, found, truth)))["accuracy"] == 1


def sizes(results: Results) -> Figure | None:
    """What becomes of hulls and tours beyond the sizes of training."""
    kept = kept_by_arm(results, "sizes", ("pointer_lengths", "pointer_tour"))
    panels = [
        (kept[arm], name, label, arm)
        for arm, name, label in (
            ("pointer_lengths", "accuracy", "share of hulls right"),
            ("pointer_lengths", "area", "area covered"),
            ("pointer_tour", "ratio", "tour over the shortest"),
        )
        if arm in kept
    ]
    if not panels:
        return None
    figure, axes = subplots(1, len(panels), size=(2.9 * len(panels) + 0.4, 3.0), squeeze=False)
    for axis, (runs, name, label, arm) in zip(axes[0], panels, strict=True):
        x, (low, high) = runs[0]["sizes"], runs[0]["seen"]
        values = np.stack([run[name] for run in runs if np.array_equal(run["sizes"], x)])
        axis.axvspan(low - 0.25, high + 0.25, color=BASELINE, alpha=0.18, linewidth=0)
        draw_band(axis, x, values, arm_color(results, arm), style="o-")
        axis.set(xlabel="points", ylabel=label)
        for check in results.claim.checks:
            bound = getattr(check, "at_least", None) or getattr(check, "at_most", None)
            if bound and check.metric in {f"long_{name}", f"tour_{name}"}:
                axis.set_ylim(*np.add((min(bound, values.min()), max(bound, values.max())), np.ptp(values) * PAD))
                axis.axhline(bound, color=BASELINE, linewidth=0.9, linestyle=(0, (4, 3)))
    return figure


def distribution(results: Results) -> Figure | None:
    """Where the pointer points, step by step, on the first instance shown."""
    runs = kept_by_arm(results, "distribution", ("pointer",)).get("pointer")
    if runs is None:
        return None
    kept = runs[0]
    p, truth = kept["distribution"], kept["truth"][0]
    around = [int(i) for i in truth if i >= 0]
    figure, (left, right) = subplots(1, 2, size=(6.4, 2.9), width_ratios=(2, 3))
    draw_polygon(left, kept["points"][0], around, BASELINE, numbered=False)
    for index, corner in enumerate(kept["points"][0]):
        left.annotate(str(index), corner, (-9, -9), textcoords="offset points", fontsize=7)
    picture = right.imshow(p, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    columns = [*around, p.shape[1] - 1]
    right.plot(columns, range(len(columns)), "s", color="#ffffff", markersize=9, markerfacecolor="none")
    right.set_xticks(range(p.shape[1]), [*map(str, range(p.shape[1] - 1)), "end"])
    right.set_yticks(range(len(p)), [str(step) for step in range(1, len(p) + 1)])
    right.set(xlabel="input point", ylabel="step")
    figure.colorbar(picture, ax=right, label="probability")
    return figure


def losses(results: Results) -> Figure | None:
    """The loss of the networks that learn hulls of one size."""
    if "loss" not in results.curves:
        return None
    return curve_bands(results, "loss", ("attention", "lstm", "pointer"), label="nats a symbol")
