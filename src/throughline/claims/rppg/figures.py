"""Pictures of the rppg claim, from stored results."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from throughline.claims.rppg.config import Config
from throughline.claims.rppg.data import STRENGTHS
from throughline.lab import Results
from throughline.lab.plots import arm_color, kept_by_arm, subplots
from throughline.sensing.pulse import bandpass, pulse_spectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Draw = Callable[[Axes, np.ndarray, np.ndarray, str], None]

__all__ = ["agreement", "difficulty", "one_clip", "scatter"]

DOMAINS = {"same": "held-out, like the training videos", "cross": "never seen"}
SHOWN = 8.0  # seconds of a pulse


def scatter(results: Results) -> "Figure | None":
    """Estimated against true rates, all seeds, one panel for each arm and domain."""
    return _panels(results, _dots)


def agreement(results: Results) -> "Figure | None":
    """Bland-Altman: error against the mean of truth and estimate, with bias and limits of agreement."""
    return _panels(results, _bland_altman, ylabel="error in bpm")


def one_clip(results: Results) -> "Figure | None":
    """Pulse and spectrum of the first test clip of the first seed, an arm in each row."""
    config: Config = results.config
    kept = {arm: results.kept(arm, results.seeds[0]) for arm in results.arms} if results.seeds else {}
    kept = {arm: arrays for arm, arrays in kept.items() if "pulse" in arrays}
    if not kept:
        return None
    figure, axes = subplots(len(kept), 2, size=(7.2, 1.15 * len(kept) + 0.8), squeeze=False, sharex="col")
    rates = torch.arange(40.0, 180.0, 0.5)
    for row, (arm, arrays) in zip(axes, kept.items(), strict=True):
        frames = min(round(SHOWN * config.fs), len(arrays["truth"]))
        time = np.arange(frames) / config.fs
        for name, color, width in (("truth", "0.6", 1.0), ("pulse", arm_color(results, arm), 1.4)):
            wave = bandpass(torch.from_numpy(arrays[name]).double(), config.fs)
            wave = wave / wave.std().clamp_min(1e-12)
            row[0].plot(time, wave[:frames], color=color, linewidth=width)
            if name == "pulse":
                row[1].plot(rates, pulse_spectrum(wave, config.fs, rates), color=color)
        row[1].axvline(float(arrays["bpm"]), color="0.6", linewidth=1.0)
        row[0].set_ylabel(arm.replace("_", " "), rotation=0, ha="right", va="center")
        row[0].set_yticks([])
        row[1].set_yticks([])
    axes[-1, 0].set_xlabel("seconds (grey: the true pulse)")
    axes[-1, 1].set_xlabel("beats per minute (grey: the true rate)")
    return figure


def difficulty(results: Results) -> "Figure | None":
    """Mean error against the strength of motion and of light, over all seeds."""
    kept = kept_by_arm(results, "motion")
    if not kept:
        return None
    figure, axes = subplots(1, 2, size=(7.2, 3.2), sharey=True)
    for axis, name in zip(axes, ("motion", "light"), strict=True):
        for arm, runs in kept.items():
            mean = np.mean([run[name] for run in runs], 0)
            axis.plot(STRENGTHS, mean, "o-", color=arm_color(results, arm), markersize=3.5, label=arm)
        axis.set(xlabel=f"strength of {name}", ylim=(0, None))
    axes[0].set_ylabel("mean absolute error in bpm")
    axes[1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _panels(results: Results, draw: "Draw", ylabel: str = "estimated bpm") -> "Figure | None":
    kept = kept_by_arm(results, "cross_rates")
    if not kept:
        return None
    size = (1.55 * len(kept) + 0.8, 3.9)
    figure, axes = subplots(len(DOMAINS), len(kept), size=size, squeeze=False, sharex=True, sharey=True)
    for row, (domain, words) in zip(axes, DOMAINS.items(), strict=True):
        for axis, (arm, runs) in zip(row, kept.items(), strict=True):
            true, estimated = np.concatenate([run[f"{domain}_rates"] for run in runs], 1)
            draw(axis, true, estimated, arm_color(results, arm))
            if domain == "same":
                axis.set_title(arm.replace("_", " "))
        row[0].set_ylabel(f"{words}\n{ylabel}", fontsize=7)
    figure.supxlabel("true bpm" if ylabel.startswith("estimated") else "mean of true and estimated bpm", fontsize=9)
    return figure


def _dots(axis: "Axes", true: np.ndarray, found: np.ndarray, color: str) -> None:
    axis.plot([45, 150], [45, 150], color="0.6", linewidth=0.8)
    axis.plot(true, found, ".", color=color, markersize=3, alpha=0.6)


def _bland_altman(axis: "Axes", true: np.ndarray, found: np.ndarray, color: str) -> None:
    error = found - true
    axis.plot((true + found) / 2, error, ".", color=color, markersize=3, alpha=0.6)
    bias, spread = float(error.mean()), float(error.std())
    axis.axhline(bias, color="0.5", linewidth=1.0)
    for limit in (bias - 1.96 * spread, bias + 1.96 * spread):
        axis.axhline(limit, color="0.5", linewidth=0.8, linestyle="--")
