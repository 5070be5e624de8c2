"""A pulse, band-passed, and its spectrum beside the truth, from stored results."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from throughline.lab import Results
from throughline.lab.plots import arm_color, subplots
from throughline.sensing.pulse import bandpass, pulse_spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["clip"]

SHOWN = 8.0  # seconds of a pulse


def clip(results: Results, fs: float) -> "Figure | None":
    """Of the first seed, an arm in each row: the arrays "pulse" and "truth" at ``fs`` frames a second, and "bpm"."""
    kept = {arm: results.kept(arm, results.seeds[0]) for arm in results.arms} if results.seeds else {}
    kept = {arm: arrays for arm, arrays in kept.items() if "pulse" in arrays}
    if not kept:
        return None
    figure, axes = subplots(len(kept), 2, size=(7.2, 1.15 * len(kept) + 0.8), squeeze=False, sharex="col")
    rates = torch.arange(40.0, 180.0, 0.5)
    for row, (arm, arrays) in zip(axes, kept.items(), strict=True):
        frames = min(round(SHOWN * fs), len(arrays["truth"]))
        time = np.arange(frames) / fs
        for name, color, width in (("truth", "0.6", 1.0), ("pulse", arm_color(results, arm), 1.4)):
            wave = bandpass(torch.from_numpy(arrays[name]).double(), fs)
            wave = wave / wave.std().clamp_min(1e-12)
            row[0].plot(time, wave[:frames], color=color, linewidth=width)
            if name == "pulse":
                row[1].plot(rates, pulse_spectrum(wave, fs, rates), color=color)
        row[1].axvline(float(arrays["bpm"]), color="0.6", linewidth=1.0)
        row[0].set_ylabel(arm.replace("_", " "), rotation=0, ha="right", va="center")
        row[0].set_yticks([])
        row[1].set_yticks([])
    axes[-1, 0].set_xlabel("seconds (grey: the true pulse)")
    axes[-1, 1].set_xlabel("beats per minute (grey: the true rate)")
    return figure
