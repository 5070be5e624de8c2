"""Filters of signals over time, differentiable and on any device."""

import functools
import math
from collections.abc import Callable

import numpy as np
import scipy.signal
import torch
from torch import Tensor

from throughline.sensing.pulse.checks import Rate, check_band, check_signal, frame_rate

__all__ = ["bandpass", "constant", "detrend", "power_of_two"]


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
    check_signal(signal, "signal")
    if not 0 <= smoothing < math.inf:
        raise ValueError(f"smoothing must be finite and not negative, got {smoothing}")
    n = signal.shape[-1]
    x = signal.double()
    x = x - x[..., :1]  # a constant is exactly zero
    if n < 3 or smoothing == 0 or not signal.numel():
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


def bandpass(signal: Tensor, fs: Rate, low: float = 0.75, high: float = 2.5, *, order: int = 1) -> Tensor:
    """Butterworth band-pass forwards and backwards (zero phase), equal to `scipy.signal.filtfilt`.

    Differentiable, on any device; in double precision inside. The signal is continued oddly at both ends, by SciPy's
    default or by as much as a short signal has.

    Args:
        signal: floating point, ``(..., T)``.
        fs: frames per second, a Fraction too.
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
    check_signal(signal, "signal")
    fs = frame_rate(fs)
    check_band(fs, low, high)
    if order < 1:
        raise ValueError(f"order must be at least 1, got {order}")
    if not signal.numel():
        return 0 * signal
    n = signal.shape[-1]
    pad = min(3 * (2 * order + 1), n - 1)
    x = signal.double()
    before = 2 * x[..., :1] - x[..., 1 : pad + 1].flip(-1)
    after = 2 * x[..., -1:] - x[..., n - 1 - pad : n - 1].flip(-1)
    x = torch.cat([before, x, after], -1)
    impulse = _impulse(order, float(low), float(high), fs, n + 2 * pad).to(x.device)
    room = power_of_two(2 * x.shape[-1])  # a convolution that does not wrap around
    spectrum = torch.fft.rfft(impulse, n=room)
    for _ in range(2):
        # started in the steady state of its first value, which a band-pass turns into nothing
        moved = torch.fft.rfft(x - x[..., :1], n=room) * spectrum
        x = torch.fft.irfft(moved, n=room)[..., : x.shape[-1]].flip(-1)
    return x[..., pad : pad + n].to(signal.dtype)


def constant(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """What `torch.compiler.assume_constant_result` does, without importing the compiler: a graph holds the result."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@constant
def _impulse(order: int, low: float, high: float, fs: float, length: int) -> Tensor:
    """The first values of the filter's response to an impulse: its recursion as a convolution."""
    return _designed_impulse(order, low, high, fs, length)


@functools.lru_cache(32)
def _designed_impulse(order: int, low: float, high: float, fs: float, length: int) -> Tensor:
    numerator, denominator = scipy.signal.butter(order, (low, high), "bandpass", fs=fs)
    return torch.from_numpy(scipy.signal.lfilter(numerator, denominator, np.eye(1, length)[0]))


def power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()
