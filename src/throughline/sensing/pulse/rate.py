"""The rate of a pulse, and how far to trust it."""

import math

import torch
from torch import Tensor

from throughline.sensing.pulse.checks import HIGH, LOW, Rate, check_band, check_signal, frame_rate
from throughline.sensing.pulse.filters import bandpass, detrend, power_of_two

__all__ = ["heart_rate", "pulse_snr"]

CHUNK = 2**16  # bins of spectra that `heart_rate` holds at a time: what stays in a cache


def heart_rate(pulse: Tensor, fs: Rate, *, low: float = LOW, high: float = HIGH, resolution: float = 0.5) -> Tensor:
    """Beats per minute: where the spectrum of the detrended and band-passed pulse is highest.

    The periodogram is padded to bins of ``resolution`` or finer; filter once, that is here, or the second harmonic of
    a slow pulse may win. Evaluate on ten seconds and more. Not differentiable; `pulse_snr` says how far to trust it.
    O(T log T) time, O(T) memory.

    Args:
        pulse: floating point, ``(..., T)``.
        fs: frames per second, a Fraction too.
        low: lower edge of the band in Hz; 40 beats per minute by default, the range of `PulseLoss`.
        high: upper edge of the band in Hz, below fs/2; 180 beats per minute by default.
        resolution: beats per minute between two bins at most.

    Returns:
        ``(...)`` in the dtype of ``pulse``, inside of the band. NaN where the spectrum is highest at an edge of the
        band or beyond, for a pulse that does not change beyond its rounding, and for one with a NaN or infinity.

    Raises:
        TypeError: ``pulse`` is not floating point.
        ValueError: ``pulse`` has no frames, or another argument is out of range.

    >>> t = torch.arange(300) / 30
    >>> heart_rate(torch.sin(2 * torch.pi * torch.tensor([[1.5], [3.5]]) * t), 30.0)
    tensor([90.0879,     nan])
    """
    check_signal(pulse, "pulse")
    fs = frame_rate(fs)
    check_band(fs, low, high)
    if not 0 < resolution < 60 * (high - low):
        raise ValueError(f"resolution must be positive and finer than the band, got {resolution}")
    frames = pulse.shape[-1]
    bins = power_of_two(max(frames, math.ceil(60 * fs / resolution)))
    parts = torch.split(pulse.detach().reshape(-1, frames), max(1, CHUNK // bins))
    return torch.cat([_rates(part, fs, low, high, bins) for part in parts]).reshape(pulse.shape[:-1])


def pulse_snr(
    pulse: Tensor, fs: Rate, bpm: Tensor, *, low: float = LOW, high: float = HIGH, tolerance: float = 6.0
) -> Tensor:
    """How far a rate stands out of a pulse, in dB: power near it and its double over that of the rest of the band.

    Of a good recording it is above 0 dB, of noise about -5 to -10 dB. The pulse is taken as it is, with a periodogram
    of the next power of two of T: give a trace with a large mean to `bandpass` first. Differentiable in ``pulse``.

    Args:
        pulse: floating point, ``(..., T)``, long enough that a bin lies within ``tolerance``: some 3 seconds.
        fs: frames per second, a Fraction too.
        bpm: ``(...)``, beats per minute, in a list or array too: the true rate, or that of `heart_rate`.
        low: lower edge of the band in Hz; that of `heart_rate` by default.
        high: upper edge of the band in Hz, below fs/2.
        tolerance: beats per minute on either side that count as near.

    Returns:
        ``(...)`` in the dtype of ``pulse``. NaN, which is above no threshold, where ``bpm`` is NaN, the pulse is
        constant zero or has a NaN or infinity.

    Raises:
        TypeError: ``pulse`` is not floating point.
        ValueError: ``pulse`` is too short, or another argument is out of range.

    >>> t = torch.arange(300) / 30
    >>> bool(pulse_snr(torch.sin(2 * torch.pi * 1.5 * t), 30.0, torch.tensor(90.0)) > 5)
    True
    """
    check_signal(pulse, "pulse")
    fs = frame_rate(fs)
    check_band(fs, low, high)
    if not 0 < tolerance < math.inf:
        raise ValueError(f"tolerance must be positive and finite, got {tolerance}")
    n = power_of_two(pulse.shape[-1])
    if fs / n > tolerance / 30:
        least = power_of_two(math.ceil(30 * fs / tolerance)) // 2 + 1
        raise ValueError(f"pulse must have at least {least} frames at fs={fs}, got {pulse.shape[-1]}")
    x = pulse.double()
    scale = x.detach().abs().amax(-1, keepdim=True)
    power = _power(_over(x, scale), n)
    frequency = torch.arange(n // 2 + 1, dtype=x.dtype, device=x.device) * (fs / n)
    rate = torch.as_tensor(bpm, device=x.device).double().unsqueeze(-1) / 60
    near = ((frequency - rate).abs() <= tolerance / 60) | ((frequency - 2 * rate).abs() <= tolerance / 60)
    rest = (frequency >= low) & (frequency <= high) & ~near
    inside, outside = (power * near).sum(-1), (power * rest).sum(-1)
    tiny = torch.finfo(x.dtype).tiny
    decibel: Tensor = 10 * (inside.clamp_min(tiny).log10() - outside.clamp_min(tiny).log10())
    return decibel.masked_fill((scale == 0).squeeze(-1) | rate.isnan().squeeze(-1), math.nan).to(pulse.dtype)


def _rates(pulse: Tensor, fs: float, low: float, high: float, bins: int) -> Tensor:
    """`heart_rate` of ``(n, T)``."""
    raw = pulse.double()
    x = bandpass(detrend(raw), fs, low, high)
    peak, size = x.abs().amax(-1), raw.abs().amax(-1)  # NaN or infinite where any frame is
    power = _power(_over(x, peak.unsqueeze(-1)), bins)
    first, last = math.ceil(low * bins / fs), math.floor(high * bins / fs)  # bins of the band
    highest, place = power[:, first : last + 1].max(-1)
    inside = (highest == power.amax(-1)) & (place > 0) & (place < last - first)
    rounding = (8 * torch.finfo(pulse.dtype).eps + 1e-11) * size
    rate: Tensor = (place + first).to(x.dtype) * (60 * fs / bins)
    return rate.where(inside & (peak > rounding) & size.isfinite(), math.nan).to(pulse.dtype)


def _over(x: Tensor, scale: Tensor) -> Tensor:
    """Squares of very small and very large numbers stay numbers."""
    return x / torch.where(scale > 0, scale, 1)


def _power(x: Tensor, n: int) -> Tensor:
    """Of the first half of the spectrum of ``(..., T)``, padded to n frames: ``(..., n // 2 + 1)``."""
    if not x.numel():  # which the libraries behind rfft refuse
        return x.new_zeros(*x.shape[:-1], n // 2 + 1)
    spectrum = torch.fft.rfft(x, n=n)
    return torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag)
