"""From colour traces to a pulse and its rate, without learning; public in `throughline.sensing.pulse`."""

import functools
import math
from collections.abc import Callable

import numpy as np
import scipy.signal
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["bandpass", "chrom", "detrend", "green", "heart_rate", "pos", "pulse_snr"]

CHUNK = 2**28  # bytes of unfolded windows that `pos` holds at a time
CHROM_BAND = (0.7, 2.5)  # Hz


def chrom(rgb: Tensor, fs: float, *, window: float = 1.6) -> Tensor:
    """Pulse from the chrominance of colour traces, window by window (CHROM, de Haan and Jeanne 2013).

    In windows of an even number of frames that overlap by half: colours over their means; X = 3R - 2G and
    Y = 1.5R + G - 1.5B, both band-passed (0.7-2.5 Hz, Butterworth of order 3, zero phase); X - Y·σ(X)/σ(Y) under a
    Hann window, added up. Frames behind the last full window are zero. The wave is the pulse upside down: 3R - 2G falls
    when green rises.

    Args:
        rgb: floating point, ``(..., T, 3)``, mean colours of the skin, in any positive unit.
        fs: frames per second, above 5.
        window: seconds.

    Returns:
        ``(..., T)`` in the dtype of ``rgb``; zeros where nothing changes.

    Raises:
        TypeError: ``rgb`` is not floating point.
        ValueError: ``rgb`` does not end in 3, is shorter than a window or has a mean that is not positive; ``fs`` or
            ``window`` is out of range.

    >>> chrom(torch.rand(2, 90, 3) + 1, 30.0).shape
    torch.Size([2, 90])
    """
    x, length = _windowed(rgb, fs, window, even=True)
    if fs <= 2 * CHROM_BAND[1]:
        raise ValueError(f"fs must be above {2 * CHROM_BAND[1]:g} frames per second for CHROM, got {fs}")
    r, g, b = _relative(x, length, length // 2).unbind(-3)
    zero_phase = _filter_matrix(length, float(fs)).to(x)
    strong, weak = (3 * r - 2 * g) @ zero_phase, (1.5 * r + g - 1.5 * b) @ zero_phase
    alpha = _ratio(strong - strong.mean(-1, keepdim=True), weak - weak.mean(-1, keepdim=True))
    hann = torch.hann_window(length, periodic=False, dtype=x.dtype, device=x.device)
    return _overlap_add((strong - alpha * weak) * hann, x.shape[-2], length // 2).reshape(rgb.shape[:-1]).to(rgb.dtype)


def pos(rgb: Tensor, fs: float, *, window: float = 1.6) -> Tensor:
    """Pulse from the plane orthogonal to the skin, window by window (POS, Wang et al. 2017).

    In every window of ⌈window · fs⌉ frames, from the first to the last that fits: colours over their means; a = G - B
    and b = G + B - 2R; a + b·σ(a)/σ(b), less its mean, is added up. Not filtered.

    Args:
        rgb: floating point, ``(..., T, 3)``, mean colours of the skin, in any positive unit.
        fs: frames per second.
        window: seconds.

    Returns:
        ``(..., T)`` in the dtype of ``rgb``; zeros where nothing changes.

    Raises:
        TypeError: ``rgb`` is not floating point.
        ValueError: ``rgb`` does not end in 3, is shorter than a window or has a mean that is not positive; ``fs`` or
            ``window`` is out of range.

    >>> pulse = 0.01 * torch.sin(2 * torch.pi * 1.2 * torch.arange(300) / 30)
    >>> rgb = 1 + pulse[:, None] * torch.tensor([0.33, 0.77, 0.53])
    >>> heart_rate(pos(rgb, 30.0), 30.0)
    tensor(72.0703)
    """
    x, length = _windowed(rgb, fs, window)
    frames = x.shape[-2]
    unfolded = 3 * (frames - length + 1) * length * x.element_size()
    parts = torch.split(x, max(1, CHUNK // unfolded))
    made = [_overlap_add(_pos_windows(part, length), frames, 1) for part in parts]
    return torch.cat(made).reshape(rgb.shape[:-1]).to(rgb.dtype)


def green(rgb: Tensor) -> Tensor:
    """The green trace of ``(..., T, 3)`` as the pulse, ``(..., T)``: the simplest method (Verkruysse et al. 2008).

    >>> green(torch.tensor([[0.1, 0.2, 0.3]]))
    tensor([0.2000])
    """
    _check_rgb(rgb)
    trace: Tensor = rgb[..., 1]
    return trace


def detrend(signal: Tensor, smoothing: float = 100.0) -> Tensor:
    """Remove the slow part of a signal: x - (I + λ²·D₂ᵀD₂)⁻¹·x with second differences D₂ (Tarvainen et al. 2002).

    D₂ᵀD₂ is the square of the mirrored Laplacian, which the cosine transform makes diagonal, less a matrix of rank
    two: O(T log T) on any device. In double precision inside.

    Args:
        signal: floating point, ``(..., T)``.
        smoothing: λ, not negative; larger keeps more of the slow part.

    Returns:
        ``(..., T)`` in the dtype of ``signal``; straight lines become zero.

    Raises:
        TypeError: ``signal`` is not floating point.
        ValueError: ``signal`` has no frames, or ``smoothing`` is negative or not finite.

    >>> detrend(torch.tensor([1.0, 1.0, 1.0]))
    tensor([0., 0., 0.])
    """
    _check_signal(signal, "signal")
    if not 0 <= smoothing < math.inf:
        raise ValueError(f"smoothing must be finite and not negative, got {smoothing}")
    n = signal.shape[-1]
    x = signal.double()
    x = x - x[..., :1]  # a constant is exactly zero
    if n < 3 or smoothing == 0:
        return torch.zeros_like(signal) + 0 * signal
    weight = smoothing**2
    frequency = torch.arange(n + 1, dtype=x.dtype, device=x.device) * (math.pi / n)  # of the mirrored signal, 2n long
    gain = 1 / (1 + weight * (2 - 2 * torch.cos(frequency)) ** 2)

    def smooth(s: Tensor) -> Tensor:
        mirrored = torch.fft.rfft(torch.cat([s, s.flip(-1)], -1))
        smoothed: Tensor = torch.fft.irfft(mirrored * gain, n=2 * n)[..., :n]
        return smoothed

    ends = x.new_zeros(2, n)  # the first differences at both ends, which the mirrored Laplacian counts in
    ends[0, 0], ends[0, 1], ends[1, -2], ends[1, -1] = -1.0, 1.0, 1.0, -1.0
    moved = smooth(ends)
    inner = torch.eye(2, dtype=x.dtype, device=x.device) / weight - moved @ ends.mT
    first = smooth(x)
    trend = first + (first @ ends.mT) @ torch.linalg.solve(inner, moved)
    rest: Tensor = x - trend
    return rest.to(signal.dtype)


def bandpass(signal: Tensor, fs: float, low: float = 0.75, high: float = 2.5, *, order: int = 1) -> Tensor:
    """Butterworth band-pass forwards and backwards (zero phase), equal to `scipy.signal.filtfilt`.

    Differentiable, on any device; in double precision inside. The signal is continued oddly at both ends, by SciPy's
    default or by as much as a short signal has.

    Args:
        signal: floating point, ``(..., T)``.
        fs: frames per second.
        low: lower edge in Hz.
        high: upper edge in Hz, below fs/2.
        order: of the Butterworth filter, at least 1.

    Returns:
        ``(..., T)`` in the dtype of ``signal``; exact zeros for a constant.

    Raises:
        TypeError: ``signal`` is not floating point.
        ValueError: ``signal`` has no frames, or another argument is out of range.

    >>> bandpass(torch.ones(4), 30.0)
    tensor([0., 0., 0., 0.])
    """
    _check_signal(signal, "signal")
    _check_band(fs, low, high)
    if order < 1:
        raise ValueError(f"order must be at least 1, got {order}")
    n = signal.shape[-1]
    pad = min(3 * (2 * order + 1), n - 1)
    x = signal.double()
    before = 2 * x[..., :1] - x[..., 1 : pad + 1].flip(-1)
    after = 2 * x[..., -1:] - x[..., n - 1 - pad : n - 1].flip(-1)
    x = torch.cat([before, x, after], -1)
    impulse = _impulse(order, float(low), float(high), float(fs), n + 2 * pad).to(x.device)
    room = _power_of_two(2 * x.shape[-1])  # a convolution that does not wrap around
    spectrum = torch.fft.rfft(impulse, n=room)
    for _ in range(2):
        # started in the steady state of its first value, which a band-pass turns into nothing
        moved = torch.fft.rfft(x - x[..., :1], n=room) * spectrum
        x = torch.fft.irfft(moved, n=room)[..., : x.shape[-1]].flip(-1)
    return x[..., pad : pad + n].to(signal.dtype)


def heart_rate(pulse: Tensor, fs: float, *, low: float = 0.75, high: float = 2.5, resolution: float = 0.5) -> Tensor:
    """Beats per minute: where the spectrum of the detrended and band-passed pulse is highest.

    The periodogram is padded to bins of ``resolution`` or finer; filter once, that is here, or the second harmonic of
    a slow pulse may win. Evaluate on ten seconds and more. Not differentiable; `pulse_snr` says how far to trust it.

    Args:
        pulse: floating point, ``(..., T)``.
        fs: frames per second.
        low: lower edge of the band in Hz.
        high: upper edge of the band in Hz, below fs/2.
        resolution: beats per minute between two bins at most.

    Returns:
        ``(...)`` in the dtype of ``pulse``; NaN for a pulse that does not change beyond its rounding.

    Raises:
        TypeError: ``pulse`` is not floating point.
        ValueError: ``pulse`` has no frames, or another argument is out of range.

    >>> t = torch.arange(300) / 30
    >>> heart_rate(torch.sin(2 * torch.pi * 1.5 * t), 30.0)
    tensor(90.0879)
    """
    _check_signal(pulse, "pulse")
    _check_band(fs, low, high)
    if not 0 < resolution < 60 * (high - low):
        raise ValueError(f"resolution must be positive and finer than the band, got {resolution}")
    x = pulse.detach().double()
    x = bandpass(detrend(x), fs, low, high)
    bins = _power_of_two(max(x.shape[-1], math.ceil(60 * fs / resolution)))
    power = torch.fft.rfft(x, n=bins).abs()
    frequency = torch.arange(power.shape[-1], dtype=x.dtype, device=x.device) * (fs / bins)
    power = power.masked_fill((frequency < low) | (frequency > high), -1.0)
    rate: Tensor = power.argmax(-1).to(x.dtype) * (60 * fs / bins)
    rounding = (8 * torch.finfo(pulse.dtype).eps + 1e-11) * pulse.detach().double().abs().amax(-1)
    return rate.masked_fill(x.abs().amax(-1) <= rounding, math.nan).to(pulse.dtype)


def pulse_snr(
    pulse: Tensor, fs: float, bpm: Tensor, *, low: float = 0.75, high: float = 2.5, tolerance: float = 6.0
) -> Tensor:
    """How far a rate stands out of a pulse, in dB: power near it and its double over that of the rest of the band.

    Of a good recording it is above 0 dB, of noise about -5 to -10 dB. The pulse is taken as it is, with a periodogram
    of the next power of two of T: give a trace with a large mean to `bandpass` first. Differentiable in ``pulse``.

    Args:
        pulse: floating point, ``(..., T)``, long enough that a bin lies within ``tolerance``: some 3 seconds.
        fs: frames per second.
        bpm: ``(...)``, beats per minute: the true rate, or that of `heart_rate`.
        low: lower edge of the band in Hz.
        high: upper edge of the band in Hz, below fs/2.
        tolerance: beats per minute on either side that count as near.

    Returns:
        ``(...)`` in the dtype of ``pulse``; NaN where ``bpm`` is NaN or the pulse is constant zero.

    Raises:
        TypeError: ``pulse`` is not floating point.
        ValueError: ``pulse`` is too short, or another argument is out of range.

    >>> t = torch.arange(300) / 30
    >>> bool(pulse_snr(torch.sin(2 * torch.pi * 1.5 * t), 30.0, torch.tensor(90.0)) > 5)
    True
    """
    _check_signal(pulse, "pulse")
    _check_band(fs, low, high)
    if not 0 < tolerance < math.inf:
        raise ValueError(f"tolerance must be positive and finite, got {tolerance}")
    n = _power_of_two(pulse.shape[-1])
    if fs / n > tolerance / 30:
        least = _power_of_two(math.ceil(30 * fs / tolerance)) // 2 + 1
        raise ValueError(f"pulse must have at least {least} frames at fs={fs}, got {pulse.shape[-1]}")
    x = pulse.double()
    scale = x.detach().abs().amax(-1, keepdim=True)
    x = x / torch.where(scale > 0, scale, 1)
    power = torch.fft.rfft(x, n=n).abs().square()
    frequency = torch.arange(n // 2 + 1, dtype=x.dtype, device=x.device) * (fs / n)
    rate = torch.as_tensor(bpm, device=x.device).double().unsqueeze(-1) / 60
    near = ((frequency - rate).abs() <= tolerance / 60) | ((frequency - 2 * rate).abs() <= tolerance / 60)
    rest = (frequency >= low) & (frequency <= high) & ~near
    inside, outside = (power * near).sum(-1), (power * rest).sum(-1)
    tiny = torch.finfo(x.dtype).tiny
    decibel: Tensor = 10 * (inside.clamp_min(tiny).log10() - outside.clamp_min(tiny).log10())
    return decibel.masked_fill((scale == 0).squeeze(-1) | rate.isnan().squeeze(-1), math.nan).to(pulse.dtype)


def _pos_windows(x: Tensor, length: int) -> Tensor:
    """``(n, T, 3)`` to the pulse of every window, ``(n, windows, length)``."""
    r, g, b = _relative(x, length, 1).unbind(-3)
    first, second = g - b, g + b - 2 * r  # of mean zero, as the colours are
    return first + _ratio(first, second) * second


def _relative(x: Tensor, length: int, step: int) -> Tensor:
    """Windows of every colour over their mean, less 1: ``(n, T, 3)`` to ``(n, 3, windows, length)``."""
    windows = x.mT.unfold(-1, length, step)
    start = windows[..., :1]
    change = windows - start  # exact zeros where nothing changes
    mean = change.mean(-1, keepdim=True)
    level = start + mean
    return (change - mean) / torch.where(level > 0, level, 1)  # a black window has no colour


def _ratio(x: Tensor, y: Tensor) -> Tensor:
    """σ(x)/σ(y) along the last dimension, both of mean zero; 0 where either is."""
    return torch.where(_norm(y) > 0, _norm(x) / torch.where(_norm(y) > 0, _norm(y), 1), 0)


def _norm(x: Tensor) -> Tensor:
    square = x.square().sum(-1, keepdim=True)
    return torch.where(square > 0, torch.where(square > 0, square, 1).sqrt(), 0)


def _overlap_add(windows: Tensor, frames: int, step: int) -> Tensor:
    """``(n, windows, length)`` to ``(n, frames)``."""
    _, count, length = windows.shape
    used = (count - 1) * step + length
    added = F.fold(windows.mT, (1, used), (1, length), stride=(1, step)).view(len(windows), used)
    return F.pad(added, (0, frames - used))


def _constant(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """What `torch.compiler.assume_constant_result` does, without importing the compiler: a graph holds the result."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@_constant
def _impulse(order: int, low: float, high: float, fs: float, length: int) -> Tensor:
    """The first values of the filter's response to an impulse: its recursion as a convolution."""
    return _designed_impulse(order, low, high, fs, length)


@_constant
def _filter_matrix(length: int, fs: float) -> Tensor:
    """CHROM's zero-phase filter of rows of ``length`` frames, as a matrix to their right."""
    return _designed_matrix(length, fs)


@functools.lru_cache(32)
def _designed_impulse(order: int, low: float, high: float, fs: float, length: int) -> Tensor:
    numerator, denominator = scipy.signal.butter(order, (low, high), "bandpass", fs=fs)
    return torch.from_numpy(scipy.signal.lfilter(numerator, denominator, np.eye(1, length)[0]))


@functools.lru_cache(32)
def _designed_matrix(length: int, fs: float) -> Tensor:
    numerator, denominator = scipy.signal.butter(3, CHROM_BAND, "bandpass", fs=fs)
    pad = min(3 * max(len(numerator), len(denominator)), length - 1)
    return torch.from_numpy(scipy.signal.filtfilt(numerator, denominator, np.eye(length), axis=1, padlen=pad).copy())


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _windowed(rgb: Tensor, fs: float, window: float, *, even: bool = False) -> tuple[Tensor, int]:
    """``(n, T, 3)`` in at least single precision, and the length of a window."""
    _check_rgb(rgb)
    _check_rate(fs)
    if not 0 < window < math.inf:
        raise ValueError(f"window must be positive and finite, got {window}")
    length = math.ceil(window * fs)
    length += even and length % 2
    if not 2 <= length <= rgb.shape[-2]:
        raise ValueError(
            f"rgb must be at least one window of {max(length, 2)} frames long ({window} s at fs={fs}), "
            f"got shape {tuple(rgb.shape)}"
        )
    if not torch.compiler.is_compiling() and not bool((rgb.mean(-2) > 0).all() & (rgb.amin() >= 0)):
        raise ValueError("rgb must have positive means and no negative values, got a trace that is black or centred")
    return rgb.reshape(-1, *rgb.shape[-2:]).to(torch.promote_types(rgb.dtype, torch.float32)), length


def _check_rgb(rgb: Tensor) -> None:
    if not rgb.is_floating_point():
        raise TypeError(f"rgb must be floating point, got {rgb.dtype}")
    if rgb.ndim < 2 or rgb.shape[-1] != 3:
        raise ValueError(f"rgb must have shape (..., T, 3), got {tuple(rgb.shape)}")


def _check_signal(signal: Tensor, name: str) -> None:
    if not signal.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {signal.dtype}")
    if signal.ndim < 1 or signal.shape[-1] == 0:
        raise ValueError(f"{name} must have shape (..., T) with T >= 1, got {tuple(signal.shape)}")


def _check_rate(fs: float) -> None:
    if not 0 < fs < math.inf:
        raise ValueError(f"fs must be a positive number of frames per second, got {fs}")


def _check_band(fs: float, low: float, high: float) -> None:
    _check_rate(fs)
    for name, edge in (("low", low), ("high", high)):
        if not 0 < edge < fs / 2:
            raise ValueError(f"{name} must lie in (0, fs/2) = (0, {fs / 2:g}) Hz, got {edge}")
    if low >= high:
        raise ValueError(f"low must be below high, got {low} and {high}")
