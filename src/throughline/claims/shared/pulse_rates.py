"""The rate that counts for an estimated pulse: every pulse has one, so that nobody is spared by abstaining."""

import math

import torch
from torch import Tensor

from throughline.sensing.pulse import bandpass, detrend, heart_rate, pulse_snr

__all__ = ["rate", "rate_errors", "snr"]

LOW, HIGH = 0.75, 2.5  # Hz: 45 to 150 beats per minute
RESOLUTION = 0.5  # beats per minute


def rate(pulse: Tensor, fs: float) -> Tensor:
    """`heart_rate` of ``(..., T)``, and the highest rate inside of the band where that has no answer; NaN of a
    constant.
    """
    found = heart_rate(pulse, fs, low=LOW, high=HIGH, resolution=RESOLUTION)
    x = bandpass(detrend(pulse.double()), fs, LOW, HIGH)
    bins = 1 << (max(x.shape[-1], math.ceil(60 * fs / RESOLUTION)) - 1).bit_length()
    frequency = torch.arange(bins // 2 + 1, dtype=x.dtype) * (fs / bins)
    power = torch.fft.rfft(x, n=bins).abs().masked_fill((frequency < LOW) | (frequency > HIGH), -1)
    forced = power.argmax(-1) * (60 * fs / bins)
    still = x.abs().amax(-1) <= 1e-6 * pulse.abs().amax(-1)
    return torch.where(found.isnan() & ~still, forced.to(found.dtype), found)


def snr(pulse: Tensor, fs: float, bpm: float) -> float:
    """`pulse_snr` of one band-passed pulse at a known rate."""
    return float(pulse_snr(bandpass(pulse, fs, LOW, HIGH), fs, torch.tensor(bpm), low=LOW, high=HIGH))


def rate_errors(found: Tensor, truth: Tensor) -> dict[str, float]:
    """Errors of rates ``(n,)`` over n videos: MAE, RMSE, MAPE in percent, and Pearson's r, 0 where it has no sense."""
    error = found - truth
    spread = min(float(found.std()), float(truth.std())) if len(found) > 1 else 0.0
    return {
        "mae": float(error.abs().mean()),
        "rmse": float(error.square().mean().sqrt()),
        "mape": float((error.abs() / truth).mean()) * 100,
        "r": float(torch.corrcoef(torch.stack([truth, found]))[0, 1]) if spread > 0 else 0.0,
    }
