"""Pictures of BO-REP's claim, from stored results."""

from typing import TYPE_CHECKING

import numpy as np

from throughline.claims.bo_rep.config import Config, kind
from throughline.lab import Results
from throughline.lab.plots import arm_color, draw_bands, kept_by_arm, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["courses", "final", "words"]


def words(config: Config) -> tuple[tuple[str, str], str]:
    """What the hardest and the easiest problem are called, and what tells all of them apart."""
    if kind(config) in ("table", "sentiment140"):
        return (f"{config.flipped:.0%} of the labels flipped", "none flipped"), "the share of flipped labels"
    return (f"gain {config.gains[0]:g}", f"gain {config.gains[-1]:g}"), "the gain of the recurrent matrix"


def courses(results: Results, titles: tuple[str, str]) -> "Figure | None":
    """Loss above the norm of the hypergradient, by oracle calls, for the hardest and the easiest problem."""
    figure, axes = subplots(2, 2, size=(8.4, 5.2), sharex=True, sharey="row")
    for column, (ending, title) in enumerate(zip(("", "_benign"), titles, strict=True)):
        draw_bands(axes[0, column], results, f"loss{ending}")
        draw_bands(axes[1, column], results, f"norm{ending}")
        axes[0, column].set_title(title)
        axes[1, column].set(xlabel="oracle calls", yscale="log")
    axes[0, 0].set_ylabel("test loss")
    axes[1, 0].set_ylabel("norm of the hypergradient")
    if not axes[0, 0].lines:
        return None
    axes[0, 1].legend()
    return figure


def final(results: Results, label: str) -> "Figure | None":
    """Final test loss of every arm at every level."""
    figure, axis = subplots()
    for arm, kept in kept_by_arm(results, "losses").items():
        places, losses, color = kept[0]["levels"], np.stack([part["losses"] for part in kept]), arm_color(results, arm)
        axis.plot(places, losses.mean(0), color=color, label=arm.replace("_", " "))
        axis.plot(places, losses.T, "o", color=color, markersize=3, alpha=0.5)
    if not axis.lines:
        return None
    axis.set(xlabel=label, ylabel="test loss")
    axis.legend()
    return figure
