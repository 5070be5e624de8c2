"""The filters against SciPy and dense systems."""

import time

import numpy as np
import pytest
import scipy.signal
import torch
from tests.sensing.pulse.samples import FS, seeded, wave

from throughline.sensing.pulse import (
    bandpass,
    detrend,
)


@pytest.mark.parametrize(("order", "low", "high", "fs"), [(1, 0.75, 2.5, 30.0), (3, 0.7, 2.5, 15.0), (2, 0.1, 9, 20.0)])
def test_bandpass_is_filtfilt(order: int, low: float, high: float, fs: float) -> None:
    x = torch.randn(2, 3, 200, dtype=torch.float64, generator=seeded()).cumsum(-1)
    b, a = scipy.signal.butter(order, (low, high), "bandpass", fs=fs)
    expected = torch.from_numpy(scipy.signal.filtfilt(b, a, x.numpy()).copy())
    torch.testing.assert_close(bandpass(x, fs, low, high, order=order), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("low", "high"), [(0.75, 2.5), (1.0, 1.02)])
def test_bandpass_of_a_long_signal_loses_no_digits(low: float, high: float) -> None:
    """Where the response has died away, and where it has not."""
    x = torch.randn(3000, dtype=torch.float64, generator=seeded()).cumsum(-1)
    b, a = scipy.signal.butter(1, (low, high), "bandpass", fs=FS)
    expected = torch.from_numpy(scipy.signal.filtfilt(b, a, x.numpy()).copy())
    torch.testing.assert_close(bandpass(x, FS, low, high), expected, rtol=0, atol=1e-12 * float(x.abs().max()))


def test_short_signals_are_continued_by_what_they_have() -> None:
    b, a = scipy.signal.butter(1, (0.75, 2.5), "bandpass", fs=FS)
    x = torch.randn(7, dtype=torch.float64, generator=seeded())
    torch.testing.assert_close(
        bandpass(x, FS), torch.from_numpy(scipy.signal.filtfilt(b, a, x.numpy(), padlen=6).copy()), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 31, 200])
@pytest.mark.parametrize("smoothing", [0.3, 100.0, 1000.0])
def test_detrend_solves_the_dense_system(frames: int, smoothing: float) -> None:
    x = torch.randn(2, frames, dtype=torch.float64, generator=seeded()) + 50
    second = np.diff(np.eye(frames), 2, axis=0) if frames > 2 else np.zeros((0, frames))
    trend = np.linalg.solve(np.eye(frames) + smoothing**2 * second.T @ second, x.numpy().T).T
    torch.testing.assert_close(detrend(x, smoothing), x - torch.from_numpy(trend), rtol=0, atol=1e-8)


def test_detrend_leaves_nothing_of_a_line_and_all_of_a_beat() -> None:
    line = torch.linspace(3, 9, 400, dtype=torch.float64)
    assert detrend(line).abs().max() < 1e-9
    beat = wave(400)
    assert (detrend(beat + line) - beat)[50:-50].abs().max() < 0.02


def test_detrend_takes_no_dense_matrix() -> None:
    x = torch.randn(10_000, generator=seeded())
    detrend(x)
    start = time.process_time()
    detrend(x)
    assert time.process_time() - start < 0.2  # the bar, 20 ms, is the benchmark's
