"""The figures that every report has, and figures as SVG that takes the page's colours."""

import io
import math
import re
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogFormatter, MaxNLocator, NullLocator, ScalarFormatter

from throughline.lab.checks import Outcome
from throughline.lab.plots import BASELINE, PALETTE, curve_bands, folded, subplots
from throughline.lab.results import Results
from throughline.report.rendering import printable

__all__ = ["comparison", "effects", "learning_curves", "svg"]

WIDE = 88  # characters of a title that fit above a check
COLORS = {"held": "#2a9d62", "refuted": "#d64545", "not shown": "#c08a1e"}


def effects(outcomes: tuple[Outcome, ...]) -> Figure:
    """A row per check: every seed as a dot, the interval as a bar, and a dashed line where the promise begins."""
    titles = [folded(outcome.quantity, WIDE) for outcome in outcomes]
    height = 0.35 + 1.05 * len(outcomes) + 0.15 * sum(title.count("\n") for title in titles)
    figure, axes = subplots(len(outcomes), 1, size=(6.4, height), squeeze=False)
    for axis, outcome, title in zip(axes[:, 0], outcomes, titles, strict=True):
        color = COLORS[outcome.verdict]
        points = np.array([p for p in outcome.points if math.isfinite(p)])
        spread = np.random.default_rng(0).uniform(-0.25, 0.25, len(points))  # a fixed jitter: same run, same picture
        axis.plot(points, spread, "o", color=BASELINE, markersize=4, alpha=0.7, zorder=2)
        if math.isfinite(outcome.low) and math.isfinite(outcome.high):
            axis.plot([outcome.low, outcome.high], [0, 0], color=color, linewidth=3, solid_capstyle="butt", zorder=3)
        if math.isfinite(outcome.estimate):
            axis.plot(outcome.estimate, 0, "D", color=color, markersize=7, zorder=4)
        for bound in outcome.bounds:
            axis.axvline(bound, color=BASELINE, linestyle="--", linewidth=1, zorder=1)
        positive = (*points, *outcome.bounds)
        if outcome.quantity.count("/") or (min(positive, default=0) > 0 and max(positive) / min(positive) > 1e3):
            axis.set_xscale("log")
            least, most = min(positive), max(positive)
            if most / least < 1.5:
                axis.set_xlim(least / 1.25, most * 1.25)
            if most / least < 100:
                axis.xaxis.set_major_formatter(ScalarFormatter())
                axis.xaxis.set_minor_formatter(ScalarFormatter())
            if most / least < 10:  # decades and their parts would leave no label, or too many
                axis.xaxis.set_major_locator(MaxNLocator(6))
                axis.xaxis.set_minor_locator(NullLocator())
        axis.set_ylim(-0.6, 0.6)
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
        axis.set_title(title, loc="left", fontsize=9)
    return figure


def learning_curves(results: Results) -> dict[str, Figure]:
    """Each logged curve: mean over seeds and a band from the lowest to the highest seed, by name."""
    long = [n for n in results.curves if any(len(s) > 1 for a in results.arms for s, _ in results.curve(n, a).values())]
    return {name: curve_bands(results, name) for name in long}


def comparison(
    metric: str, rows: list[tuple[str, dict[int, float], dict[int, float]]], names: tuple[str, str]
) -> Figure:
    """Two runs side by side, an arm a row: means with every seed behind them."""
    figure, axis = subplots(size=(6.4, 0.9 + 0.5 * len(rows)))
    for place, (_, *runs) in enumerate(rows):
        for shift, color, name, values in zip((-0.15, 0.15), (BASELINE, PALETTE[1]), names, runs, strict=True):
            numbers = list(values.values())
            label = name if place == 0 else None
            axis.plot(numbers, [place + shift] * len(numbers), "o", color=color, markersize=3.5, alpha=0.5)
            axis.plot(np.mean(numbers) if numbers else math.nan, place + shift, "D", color=color, label=label)
    axis.set_yticks(range(len(rows)), [folded(arm, 26) for arm, *_ in rows])
    axis.invert_yaxis()
    axis.set_xlabel(metric.replace("_", " "))
    axis.legend(loc="best")
    return figure


def svg(figure: Figure, name: str) -> str:
    """``figure`` as an SVG element: black follows the page's text colour, text stays text, ids carry ``name``."""
    for legend in filter(None, (axis.get_legend() for axis in figure.axes)):
        legend.set_frame_on(False)  # a frame brings a ground of its own, white on a dark page
    _take_literally(figure)
    stream = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "svg.id": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # the reader's own fonts show the text
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace("#000000", "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\b(id="|href="#|url\(#)(?!' + re.escape(name) + ")", rf"\g<1>{name}-", text)
    return re.sub(r"font: ([^;]*?)'DejaVu Sans'[^;\"]*", r"font: \1system-ui, sans-serif", text)


def _take_literally(figure: Figure) -> None:
    """Show texts as they are: a dollar in the name of a file or a class opens no formula, a stray byte is spelt out.

    Only the powers of ten of logarithmic axes are formulas, which Matplotlib itself writes as it draws.
    """
    sides = [side for axes in figure.axes for side in (axes.xaxis, axes.yaxis)]
    ticks = [(side.get_major_formatter(), side.get_major_ticks()) for side in sides]
    ticks += [(side.get_minor_formatter(), side.get_minor_ticks()) for side in sides]
    powers = set()
    for kind, found in ticks:
        if isinstance(kind, LogFormatter):
            powers |= {label for tick in found for label in (tick.label1, tick.label2)}
        elif isinstance(kind, FuncFormatter):  # names that a claim has set
            kind.func = partial(_named, kind.func)
    for text in figure.findobj(Text):
        text.set_text(printable(text.get_text()))
        if text not in powers:
            text.set_parse_math(False)


def _named(name: Callable[..., str], value: float, place: int | None) -> str:
    return printable(name(value, place))
