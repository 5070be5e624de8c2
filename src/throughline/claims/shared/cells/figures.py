"""Pictures that the claims about architecture search have in common, from stored results."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from throughline.lab import Results
from throughline.lab.plots import BASELINE, PALETTE, arm_color, bare, folded, kept_by_arm, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["AGREEMENT", "agreement", "cells", "decisions_of", "landscape", "option_color"]

AGREEMENT = "How often two seeds decide alike: each place (dots) and their mean"
KINDS = ("conv", "avg_pool", "max_pool", "skip", "noise")  # of options, by a part of their names; each has a colour


def landscape(results: Results, arms: Sequence[str] | None = None, metric: str = "test_accuracy") -> "Figure | None":
    """Where the arms land among all architectures of the table; None where the setting has none."""
    from throughline.claims.shared.cells.truth import table_for

    table = table_for(results.config)
    shown = [arm for arm in (arms or results.arms) if results.values(metric, arm)]
    if table is None or not shown:
        return None
    scores = np.array([np.mean(list(by_seed.values())) for by_seed in table.scores.values()])
    figure, (above, below) = subplots(
        2, 1, size=(7.2, 2.6 + 0.28 * len(shown)), sharex=True, height_ratios=[5, 1 + len(shown)]
    )
    above.hist(scores, bins=60, color=BASELINE, alpha=0.5)
    above.set_ylabel("architectures")
    every = {name: next(o for o in options if "conv" in o) for name, options in table.options.items()}
    for value, style, label in (
        (float(np.median(scores)), ":", f"median of {len(scores)}"),
        *([(table.score(every), "--", "a convolution on every edge")] if every in table else []),
    ):
        for axis in (above, below):
            axis.axvline(value, color="0.5", linestyle=style, linewidth=1)
        above.plot([], [], color="0.5", linestyle=style, linewidth=1, label=label)
    above.legend(loc="upper left", frameon=False, fontsize=8)
    for place, arm in enumerate(shown):
        values = np.array(list(results.values(metric, arm).values()))
        color = arm_color(results, arm)
        below.plot(values, np.full(len(values), place), "o", color=color, markersize=4.5, alpha=0.7)
        below.plot(values.mean(), place, "|", color=color, markersize=14, markeredgewidth=2)
    below.set_yticks(range(len(shown)), [arm.replace("_", " ") for arm in shown])
    below.set_ylim(len(shown) - 0.5, -0.5)
    below.set_xlabel("test accuracy after training from scratch")
    return figure


def cells(results: Results, arms: Sequence[str] | None = None) -> "Figure | None":
    """What each arm decided on the first seed: a row for each kind of cell, an arrow for each edge that computes."""
    shown = [arm for arm in (arms or results.arms) if arm in results.arms]
    seed = next((s for s in results.seeds if any("decisions" in results.kept(arm, s) for arm in shown)), None)
    if seed is None:
        return None
    found = {arm: decided for arm in shown if (decided := decisions_of(results, arm, seed))}
    groups = list(dict.fromkeys(name.partition(".")[0] for name in next(iter(found.values()))))
    figure, axes = subplots(len(groups), len(found), size=(2.6 * len(found), 1.6 * len(groups) + 0.4), squeeze=False)
    for column, (arm, decided) in enumerate(found.items()):
        for row, group in enumerate(groups):
            prefix = f"{group}."
            _draw(axes[row, column], {n.removeprefix(prefix): o for n, o in decided.items() if n.startswith(prefix)})
        axes[0, column].set_title(folded(arm, 24), color=arm_color(results, arm))
    used = sorted({option for decided in found.values() for option in decided.values() if option not in (None, "none")})
    for option in used:
        axes[0, 0].plot([], [], color=option_color(option), linewidth=2, label=option.replace("_", " "))
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8
    )
    return figure


def agreement(results: Results) -> "Figure | None":
    """The share of pairs of seeds that agree, place by place; None for fewer than two seeds."""
    kept = kept_by_arm(results, "decisions")
    found = {arm: np.stack([seed["decisions"] for seed in seeds]) for arm, seeds in kept.items() if len(seeds) > 1}
    if not found:
        return None
    figure, axis = subplots(size=(6.4, 0.9 + 0.42 * len(found)))
    for place, (arm, decided) in enumerate(found.items()):
        shares = agreeing(decided)
        axis.plot(shares, np.full(len(shares), place), "o", color=arm_color(results, arm), markersize=4.5, alpha=0.6)
        axis.plot(shares.mean(), place, "|", color=arm_color(results, arm), markersize=16, markeredgewidth=2)
    axis.set_yticks(range(len(found)), [arm.replace("_", " ") for arm in found])
    axis.set(ylim=(len(found) - 0.5, -0.5), xlim=(-0.03, 1.03), xlabel="share of the pairs of seeds that agree")
    return figure


def agreeing(decided: np.ndarray) -> np.ndarray:
    """Of codes ``(seeds, places)``: the share of pairs of seeds with the same code, for each place."""
    seeds = len(decided)
    same = (decided[:, None] == decided).sum((0, 1)) - seeds  # every pair twice
    return np.asarray(same / (seeds * (seeds - 1)))


def decisions_of(results: Results, arm: str, seed: int) -> dict[str, str | None]:
    """The option of each choice that an arm decided on, None for a cut edge; empty where it kept nothing."""
    codes = results.kept(arm, seed).get("decisions")
    if codes is None:
        return {}
    from throughline.claims.shared.cells.loading import option_names

    options = option_names(results.config)
    return {name: None if code < 0 else names[code] for (name, names), code in zip(options.items(), codes, strict=True)}


def option_color(option: str) -> str:
    """The colour of a kind of operation in every picture."""
    place = next((place for place, kind in enumerate(KINDS) if kind in option), None)
    return BASELINE if place is None else PALETTE[place]


def _draw(axis: "Axes", edges: Mapping[str, str | None]) -> None:
    """A cell as points on a line, its edges named "to_from" as arcs above and below it."""
    from matplotlib.patches import FancyArrowPatch

    ends = {name: tuple(map(int, name.split("_"))) for name in edges}
    last = max(to for to, _ in ends.values())
    for name, option in edges.items():
        to, since = ends[name]
        if option in (None, "none"):
            continue
        bend = 0.0 if to - since == 1 else (-0.45 if (to + since) % 2 else 0.45)
        arrow = FancyArrowPatch(
            (since, 0),
            (to, 0),
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>",
            mutation_scale=11,
            shrinkA=9,
            shrinkB=9,
            color=option_color(str(option)),
            linewidth=1.8,
        )
        axis.add_patch(arrow)
    for node in range(last + 1):
        axis.plot(node, 0, "o", markersize=16, color=BASELINE, alpha=0.35)
        axis.annotate(str(node), (node, 0), ha="center", va="center", fontsize=9)
    axis.set(xlim=(-0.4, last + 0.4), ylim=(-0.28 * last - 0.2, 0.28 * last + 0.2))
    bare(axis)
