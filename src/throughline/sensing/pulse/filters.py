"""Filters of signals over time, differentiable and on any device."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.signal
import torch
from numpy.typing import NDArray
from torch import Tensor

from throughline.sensing.pulse.checks import Rate, check_band, check_signal, frame_rate

__all__ = ["bandpass", "constant", "detrend", "power_of_two"]

NEGLIGIBLE = 2.0**-60  # of the loudest value of a response that dies away


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
    gain, ends = (part.to(x.device) for part in (_gain(n, smoothing), _ends(n, smoothing)))
    mirrored = torch.fft.rfft(torch.cat([x, x.flip(-1)], -1))
    first = torch.fft.irfft(mirrored * gain, n=2 * n)[..., :n]
    steps = torch.stack([first[..., 1] - first[..., 0], first[..., -1] - first[..., -2]], -1)
    rest: Tensor = x - (first + steps @ ends)
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
    spectrum = _spectrum(order, float(low), float(high), fs, x.shape[-1]).to(x.device)
    room = 2 * (len(spectrum) - 1)
    for first, there in ((0, spectrum), (-1, spectrum.conj())):  # forwards, and backwards from the last frame
        # started in the steady state of its first value, which a band-pass turns into nothing
        moved = torch.fft.rfft(x - x[..., first, None], n=room) * there
        x = torch.fft.irfft(moved, n=room)[..., : x.shape[-1]]
    return x[..., pad : pad + n].to(signal.dtype)


def constant(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """What `torch.compiler.assume_constant_result` does, without importing the compiler: a graph holds the result."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@constant
def _gain(n: int, smoothing: float) -> Tensor:
    """Of the smoother that mirrors, at the frequencies of a mirrored signal of 2n frames."""
    return torch.from_numpy(_smoother(n, smoothing)[0])


@constant
def _ends(n: int, smoothing: float) -> Tensor:
    """What the smoother that does not mirror adds, for the first differences at both ends, ``(2, n)``."""
    return torch.from_numpy(_smoother(n, smoothing)[1])


@functools.lru_cache(32)
def _smoother(n: int, smoothing: float) -> tuple[NDArray[Any], NDArray[Any]]:
    gain = 1 / (1 + smoothing**2 * (2 - 2 * np.cos(np.arange(n + 1) * (math.pi / n))) ** 2)
    ends = np.zeros((2, n))  # the first differences at both ends, which the mirrored Laplacian counts in
    ends[0, :2] = ends[1, -2:] = -1.0, 1.0
    moved = np.fft.irfft(np.fft.rfft(np.concatenate([ends, ends[:, ::-1]], 1)) * gain, 2 * n)[:, :n]
    added: NDArray[Any] = np.linalg.solve(np.eye(2) / smoothing**2 - moved @ ends.T, moved)
    return gain, added


@constant
def _spectrum(order: int, low: float, high: float, fs: float, length: int) -> Tensor:
    """Of the filter's recursion as a convolution that does not wrap around over ``length`` frames."""
    return torch.from_numpy(_designed_spectrum(order, low, high, fs, length))


@functools.lru_cache(32)
def _designed_spectrum(order: int, low: float, high: float, fs: float, length: int) -> NDArray[Any]:
    numerator, denominator = scipy.signal.butter(order, (low, high), "bandpass", fs=fs)
    response = scipy.signal.lfilter(numerator, denominator, np.eye(1, length)[0])
    last = np.flatnonzero(np.abs(response) > NEGLIGIBLE * np.abs(response).max())[-1]
    spectrum: NDArray[Any] = np.fft.rfft(response[: last + 1], power_of_two(max(2, length + int(last))))
    return spectrum


def power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()
