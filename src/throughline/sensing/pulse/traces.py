"""From colour traces to a pulse, without learning."""

import functools
import math

import numpy as np
import scipy.signal
import torch
from torch import Tensor
from torch.nn import functional as F

from throughline.core.checks import readable
from throughline.sensing.pulse.checks import Rate, check_rgb, frame_rate
from throughline.sensing.pulse.filters import constant
from throughline.sensing.pulse.sliding import FIRST, SECOND, covariances, overlapped

__all__ = ["chrom", "green", "pos"]

CHUNK = 2**14  # frames that `pos` takes at a time, of one trace at least: what stays in a cache
CHROM_BAND = (0.7, 2.5)  # Hz


def chrom(rgb: Tensor, fs: Rate, *, window: float = 1.6) -> Tensor:
    """Pulse from the chrominance of colour traces, window by window (CHROM, de Haan and Jeanne 2013).

    In windows of an even number of frames that overlap by half: colours over their means; X = 3R - 2G and
    Y = 1.5R + G - 1.5B, both band-passed (0.7-2.5 Hz, Butterworth of order 3, zero phase); X - Y·σ(X)/σ(Y) under a
    Hann window, added up. Frames behind the last full window are zero. The wave is the pulse upside down: 3R - 2G falls
    when green rises.

    Args:
        rgb: floating point, ``(..., T, 3)``, mean colours of the skin, in any positive unit.
        fs: frames per second, above 5, a Fraction too.
        window: seconds.

    Returns:
        ``(..., T)`` in the dtype of ``rgb``; zeros where nothing changes, NaN where a window has one.

    Raises:
        TypeError: ``rgb`` is not floating point.
        ValueError: ``rgb`` does not end in 3, is shorter than a window or has a mean that is not positive; ``fs`` or
            ``window`` is out of range.

    >>> chrom(torch.rand(2, 90, 3) + 1, 30.0).shape
    torch.Size([2, 90])
    """
    fs = frame_rate(fs)
    x, length = _windowed(rgb, fs, window, even=True)
    if fs <= 2 * CHROM_BAND[1]:
        raise ValueError(f"fs must be above {2 * CHROM_BAND[1]:g} frames per second for CHROM, got {fs}")
    r, g, b = _relative(x, length, length // 2).unbind(-3)
    zero_phase = _filter_matrix(length, fs).to(x)
    with torch.autocast(x.device.type, enabled=False):
        strong, weak = (3 * r - 2 * g) @ zero_phase, (1.5 * r + g - 1.5 * b) @ zero_phase
    alpha = _ratio(strong - strong.mean(-1, keepdim=True), weak - weak.mean(-1, keepdim=True))
    hann = torch.hann_window(length, periodic=False, dtype=x.dtype, device=x.device)
    return _overlap_add((strong - alpha * weak) * hann, x.shape[-2], length // 2).reshape(rgb.shape[:-1]).to(rgb.dtype)


def pos(rgb: Tensor, fs: Rate, *, window: float = 1.6) -> Tensor:
    """Pulse from the plane orthogonal to the skin, window by window (POS, Wang et al. 2017).

    In every window of ⌈window · fs⌉ frames, from the first to the last that fits: colours over their means; a = G - B
    and b = G + B - 2R; a + b·σ(a)/σ(b), less its mean, is added up. Not filtered. A window of L frames
    costs O(T log L) time and O(T) memory.

    Args:
        rgb: floating point, ``(..., T, 3)``, mean colours of the skin, in any positive unit.
        fs: frames per second, a Fraction too.
        window: seconds.

    Returns:
        ``(..., T)`` in the dtype of ``rgb``; zeros where nothing changes, NaN where a window has one.

    Raises:
        TypeError: ``rgb`` is not floating point.
        ValueError: ``rgb`` does not end in 3, is shorter than a window or has a mean that is not positive; ``fs`` or
            ``window`` is out of range.

    >>> pulse = 0.01 * torch.sin(2 * torch.pi * 1.2 * torch.arange(300) / 30)
    >>> rgb = 1 + pulse[:, None] * torch.tensor([0.33, 0.77, 0.53])
    >>> from throughline.sensing.pulse import heart_rate
    >>> heart_rate(pos(rgb, 30.0), 30.0)
    tensor(72.0703)
    """
    x, length = _windowed(rgb, frame_rate(fs), window)
    parts = torch.split(x, max(1, CHUNK // x.shape[-2]))
    return torch.cat([_pos(part, length) for part in parts]).reshape(rgb.shape[:-1]).to(rgb.dtype)


def green(rgb: Tensor) -> Tensor:
    """The green trace of ``(..., T, 3)`` as the pulse, ``(..., T)``: the simplest method (Verkruysse et al. 2008).

    >>> green(torch.tensor([[0.1, 0.2, 0.3]]))
    tensor([0.2000])
    """
    check_rgb(rgb)
    trace: Tensor = rgb[..., 1]
    return trace


def _pos(rgb: Tensor, length: int) -> Tensor:
    """``(n, T, 3)`` to ``(n, T)``, in double precision, without laying windows out.

    With the weights c of a + b·σ(a)/σ(b) over the means μ of a window w, a frame's value is Σ c·(x(t) - μ) over its
    windows; the variances of a and b are quadratic forms of the colours' covariances.
    """
    x = rgb.double().mT
    largest = x.detach().nan_to_num(0, 0, 0).amax(-1, keepdim=True)
    x = x / torch.where(largest > 0, largest, 1)  # the pulse does not depend on units, and squares stay in range
    mean, products = covariances(x, length)
    level = x[..., : mean.shape[-1]] + mean
    inverse = 1 / torch.where(level > 0, level, 1)  # a black window has no colour
    rr, gg, bb, rg, rb, gb = (products * inverse[:, FIRST] * inverse[:, SECOND]).unbind(1)
    first, second = gg + bb - 2 * gb, gg + bb + 4 * (rr - rg - rb) + 2 * gb
    moving = (first > 0) & (second > 0)
    ratio = torch.where(moving, (torch.where(moving, first, 1) / torch.where(moving, second, 1)).sqrt(), 0)
    weight = torch.stack([-2 * ratio, 1 + ratio, ratio - 1], 1) * inverse
    return overlapped(weight, x, weight * mean, length).sum(1)


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


@constant
def _filter_matrix(length: int, fs: float) -> Tensor:
    """CHROM's zero-phase filter of rows of ``length`` frames, as a matrix to their right."""
    return _designed_matrix(length, fs)


@functools.lru_cache(32)
def _designed_matrix(length: int, fs: float) -> Tensor:
    numerator, denominator = scipy.signal.butter(3, CHROM_BAND, "bandpass", fs=fs)
    pad = min(3 * max(len(numerator), len(denominator)), length - 1)
    return torch.from_numpy(scipy.signal.filtfilt(numerator, denominator, np.eye(length), axis=1, padlen=pad).copy())


def _windowed(rgb: Tensor, fs: float, window: float, *, even: bool = False) -> tuple[Tensor, int]:
    """``(n, T, 3)`` in at least single precision, and the length of a window."""
    check_rgb(rgb)
    if not 0 < window < math.inf:
        raise ValueError(f"window must be positive and finite, got {window}")
    length = math.ceil(window * fs)
    length += even and length % 2
    if not 2 <= length <= rgb.shape[-2]:
        raise ValueError(
            f"rgb must be at least one window of {max(length, 2)} frames long ({window} s at fs={fs}), "
            f"got shape {tuple(rgb.shape)}"
        )
    if readable(rgb) and bool((rgb.mean(-2) <= 0).any() | (rgb < 0).any()):
        raise ValueError("rgb must have positive means and no negative values, got a trace that is black or centred")
    return rgb.reshape(-1, *rgb.shape[-2:]).to(torch.promote_types(rgb.dtype, torch.float32)), length
